// Device memory that the backend takes beside what is reserved: a constant, not a part of any plan.

/** Bytes that a context takes, before anything else: assumed, until a GPU has told. What the driver calls free in a context is without them. */
export const contextBytes = 512 * 2 ** 20;

/**
 * Bytes that a backend and its first steps take beside its context: streams, the kernels' code, cuBLASLt's handle, and code that driver and
 * cuBLASLt load when it is first wanted. Assumed, rather too high, until a GPU has told; `lomo doctor` measures it. What a run may reserve is
 * what is free less this.
 */
export const startupBytes = 256 * 2 ** 20;
