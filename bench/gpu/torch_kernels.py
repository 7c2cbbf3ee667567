#!/usr/bin/env python3
"""The other side of `pnpm bench gpu kernels`: for every kernel it is asked about, what PyTorch runs in its place, alone, at the same sizes.

Asked by a file of JSON: a list of {id, op, ins, inouts, outs, attributes}, operands as {shape, dtype}. Answers one JSON line each:
{id, what, milliseconds}, or {id, absent: why}. Times are the middle of bursts that are longer than what starts them.
"""
import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "i32": torch.int32, "u8": torch.uint8}


class Maker:
    """Operands of a request, with numbers that are no zeros."""

    def __init__(self, device):
        self.device = device

    def random(self, operand, grad=False):
        x = torch.randn(operand["shape"], device=self.device).to(DTYPES[operand["dtype"]])
        return x.requires_grad_(grad)

    def ids(self, count, most):
        return torch.randint(most, (count,), device=self.device)


def forward_of(fn, grad):
    """`fn` without its graph, or the backward of it alone."""
    if not grad:
        def run():
            with torch.no_grad():
                fn()
        return run
    out, inputs = fn()
    dy = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, inputs, dy, retain_graph=True)


def segments(r):
    """Rows of equal length: a request's segment starts say how many."""
    starts = next(o for o in r["ins"] if o["dtype"] == "i32")
    return starts["shape"][0] - 1


def attention(m, r, backward):
    tokens, heads, d = r["ins"][0]["shape"]
    rows = segments(r)

    def apart(operand):  # [tokens, heads, d] as [rows, heads, tokens of a row, d]
        return m.random(operand).view(rows, tokens // rows, -1, d).transpose(1, 2).detach().requires_grad_(backward)

    q, k, v = (apart(o) for o in r["ins"][:3])
    grouped = {"enable_gqa": True} if k.shape[1] != heads else {}

    def run():
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, **grouped)
        return (out, (q, k, v)) if backward else out

    return "scaled_dot_product_attention, flash", forward_of(run, backward)


def rms_norm(m, r, backward):
    x, w = (m.random(o, backward) for o in r["ins"][:2])

    def run():
        out = F.rms_norm(x, w.shape, w, 1e-5)
        return (out, (x, w)) if backward else out

    return "F.rms_norm", forward_of(run, backward)


def silu_mul(m, r, backward):
    gate, up = (m.random(o, backward) for o in r["ins"][:2])

    def run():
        out = F.silu(gate) * up
        return (out, (gate, up)) if backward else out

    return "F.silu(gate) * up", forward_of(run, backward)


def rope(m, r):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x = m.random(r["ins"][0])
    tokens, _, d = x.shape
    angles = torch.arange(tokens, device=m.device)[:, None] * torch.rand(d, device=m.device)
    cos, sin = angles.cos()[None].to(x.dtype), angles.sin()[None].to(x.dtype)
    turned = x.transpose(0, 1)[None]  # [1, heads, tokens, d]
    none = turned[:, :1, :1]

    return "transformers' apply_rotary_pos_emb", forward_of(lambda: apply_rotary_pos_emb(turned, none, cos, sin), False)


def embedding(m, r):
    ids, w = r["ins"][0], m.random(r["ins"][1])
    at = m.ids(ids["shape"][0], w.shape[0])
    return "F.embedding", forward_of(lambda: F.embedding(at, w), False)


def embedding_grad(m, r):
    dy, rows = m.random(r["ins"][1]), r["inouts"][0]["shape"][0]
    at = m.ids(dy.shape[0], rows)
    return "embedding_dense_backward", forward_of(lambda: torch.ops.aten.embedding_dense_backward(dy, at, rows, -1, False), False)


def cross_entropy(m, r):
    logits = m.random(r["inouts"][0]).requires_grad_()
    targets = m.ids(logits.shape[0], logits.shape[1])

    def run():
        loss = F.cross_entropy(logits.float(), targets, reduction="sum")
        torch.autograd.grad(loss, logits)

    return "F.cross_entropy in f32 with its backward", run


def matmul(m, r):
    a, b = (m.random(o) for o in r["ins"][:2])
    a = a.t() if r["attributes"].get("ta") else a
    b = b.t() if r["attributes"].get("tb") else b
    return "a @ b", forward_of(lambda: a @ b, False)


def weight_grad(m, r):
    # A row tile of dW has as many rows as what it is written to.
    dy, x = (m.random(o) for o in r["ins"][:2])
    rows = (r["outs"] or r["inouts"])[0]["shape"][0]
    dy = dy[:, :rows]
    return "dy.T @ x", forward_of(lambda: dy.t() @ x, False)


def lomo_update(m, r):
    p = m.random(r["inouts"][0])
    g = torch.randn_like(p)
    return "p.add_(g, alpha=-lr), to nearest", forward_of(lambda: p.add_(g, alpha=-1e-3), False)


def adamw_update(m, r):
    p = torch.nn.Parameter(m.random(r["inouts"][0]))
    p.grad = torch.randn_like(p)
    optimizer = torch.optim.AdamW([p], lr=1e-4, fused=True)
    return "AdamW(fused=True), to nearest", optimizer.step


def same(name, fn):
    """An op that reads its `ins` and is one call."""
    def make(m, r):
        operands = [m.random(o) for o in r["ins"]]
        return name, forward_of(lambda: fn(*operands), False)
    return make


COUNTERPARTS = {
    "attention": lambda m, r: attention(m, r, False),
    "attention_backward": lambda m, r: attention(m, r, True),
    "rms_norm": lambda m, r: rms_norm(m, r, False),
    "rms_norm_backward": lambda m, r: rms_norm(m, r, True),
    "silu_mul": lambda m, r: silu_mul(m, r, False),
    "silu_mul_backward": lambda m, r: silu_mul(m, r, True),
    "rope": rope,
    "embedding": embedding,
    "embedding_grad_add": embedding_grad,
    "cross_entropy": cross_entropy,
    "matmul": matmul,
    "matmul_add": matmul,
    "weight_grad": weight_grad,
    "weight_grad_add": weight_grad,
    "lomo_update": lomo_update,
    "adamw_update": adamw_update,
    "add": same("a + b", lambda a, b: a + b),
    "add_into": lambda m, r: (lambda a, b: ("a.add_(b)", forward_of(lambda: a.add_(b), False)))(m.random(r["inouts"][0]), m.random(r["ins"][0])),
    "cast": same("x.float()", lambda x: x.float()),
}


def milliseconds(run, device, burst=0.03):
    def settle():
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def timed(count):
        settle()
        start = time.perf_counter()
        for _ in range(count):
            run()
        settle()
        return (time.perf_counter() - start) / count

    timed(1)
    count = max(1, min(500, round(burst / timed(2))))
    return 1000 * statistics.median(timed(count) for _ in range(3))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("requests", help="file of JSON")
    p.add_argument("--device", default="cuda:0")
    a = p.parse_args()
    device = torch.device(a.device)
    with open(a.requests) as f:
        requests = json.load(f)
    torch.manual_seed(0)
    for r in requests:
        make = COUNTERPARTS.get(r["op"])
        try:
            if make is None:
                found = {"absent": "PyTorch has nothing of the kind"}
            else:
                what, run = make(Maker(device), r)
                found = {"what": what, "milliseconds": milliseconds(run, device)}
        except Exception as error:  # noqa: BLE001  one kernel's failure must not cost the others
            found = {"absent": f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"}
        print(json.dumps({"id": r["id"], **found}), flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
