#!/usr/bin/env python3
"""The other side of `pnpm bench gpu train`: a Hugging Face LLaMA with random weights, trained by PyTorch under LOMO.

Ways: `lomo` is the authors' optimizer (the lomo_optim package where it can be imported, else the same update written from the
paper); `hook` the leanest fused update that PyTorch allows, in the dtype of the weights; `compiled` that hook, with every decoder
layer and the head with the loss compiled. Attention is scaled_dot_product_attention on its flash kernel. A shape whose activations do
not fit is run again with gradient checkpointing, and says so. One JSON line for the best matrix product, then one for every
way and shape. Bytes and seconds.
"""
import argparse
import gc
import json
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cells", required=True, help="way:tokens x rows, such as lomo:1024x1,hook:1024x4")
    p.add_argument("--config", required=True, help="config.json of the model")
    p.add_argument("--text", required=True, help="file whose bytes are the tokens")
    p.add_argument("--device", default="cuda:0")
    p.add_argument("--warmup", type=int, default=3)
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--lr", type=float, default=0.01)
    p.add_argument("--edge", type=int, default=8192, help="of the square product that is timed")
    return p.parse_args()


def say(**found):
    print(json.dumps(found), flush=True)


def driver_used(device):
    """Bytes that the driver counts as used on the whole device; None without one."""
    if device.type != "cuda":
        return None
    try:
        out = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", str(device.index)], capture_output=True, text=True, check=True, timeout=20).stdout
        return float(out.splitlines()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def settle(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product_peak(edge, device):
    """Operations a second of the best bf16 product, of bursts long enough that starting them is nothing."""
    a, b = (torch.randn(edge, edge, device=device).bfloat16() for _ in range(2))
    best = 0.0
    for right in (b, b.t()):
        for count in (2, 20, 20, 20):
            settle(device)
            start = time.perf_counter()
            for _ in range(count):
                a @ right
            settle(device)
            best = max(best, 2 * edge**3 * count / (time.perf_counter() - start))
    return best


class PaperLomo:
    """LOMO as its paper describes it: while backward runs, every gradient that is there updates its parameter in f32 and is forgotten."""

    def __init__(self, parameters, lr):
        self.parameters, self.lr = list(parameters), lr
        for p in self.parameters:
            p.register_hook(self.update)

    @torch.no_grad()
    def update(self, gradient):
        # The hook comes before the gradient is stored: what it finds are the ones stored so far.
        for p in self.parameters:
            if p.grad is not None:
                step, p.grad = p.grad.float(), None
                p.copy_(p.float().sub_(step, alpha=self.lr))
        return gradient

    def fused_backward(self, loss, lr):
        self.lr = lr
        loss.backward()
        self.update(None)


def lomo(model, lr):
    try:
        from lomo_optim import Lomo
    except ImportError:
        return PaperLomo(model.parameters(), lr), "written from the paper"
    return Lomo(model, lr=lr), "the authors' lomo_optim"


def leanest_hook(model, lr):
    @torch.no_grad()
    def update(p):
        p.add_(p.grad, alpha=-lr)
        p.grad = None

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(update)


def build(config, device):
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.LlamaForCausalLM._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    model.config.use_cache = False
    return model.train()


def stepper(way, model, lr):
    """A function that trains on ids [rows, tokens] and returns the loss before the update; and where the optimizer comes from."""
    if way == "lomo":
        optimizer, source = lomo(model, lr)

        def step(ids):
            loss = model(input_ids=ids, labels=ids).loss
            optimizer.fused_backward(loss, lr)
            return loss.detach()

        return step, source
    leanest_hook(model, lr)
    if way == "hook":
        def forward(ids):
            return model(input_ids=ids, labels=ids).loss
    else:
        for layer in model.model.layers:
            layer.compile(dynamic=False)

        @torch.compile(dynamic=False)
        def head(h, ids):
            logits = model.lm_head(h)[:, :-1].float()
            return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))

        def forward(ids):
            return head(model.model(input_ids=ids).last_hidden_state, ids)

    def step(ids):
        loss = forward(ids)
        loss.backward()
        return loss.detach()

    return step, "post-accumulate hook"


def measure(a, step, ids_of, device):
    times, losses = [], []
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    for i in range(a.warmup + a.steps):
        ids = ids_of(i)
        settle(device)
        start = time.perf_counter()
        loss = step(ids)
        losses.append(loss.item())  # comes after the backward on the stream: it waits for the whole step
        settle(device)
        times.append(time.perf_counter() - start)
    cuda = device.type == "cuda"
    return {
        "tokens_per_s": ids.numel() / statistics.median(times[a.warmup:]), "times_s": times, "losses": losses,
        "allocated": torch.cuda.max_memory_allocated(device) if cuda else 0, "reserved": torch.cuda.max_memory_reserved(device) if cuda else 0,
    }


def attempt(a, way, shape, made, before):
    """One way and shape on the model of `made`; on the flash kernel, or on any where that one refuses."""
    model, step, source = made
    device, (seq, rows) = torch.device(a.device), shape
    with open(a.text, "rb") as f:
        stream = torch.frombuffer(bytearray(f.read()), dtype=torch.uint8).long() % model.config.vocab_size
    size = seq * rows
    if len(stream) < size:
        raise SystemExit(f"--text holds {len(stream)} tokens, a step needs {size}")

    def ids_of(i):
        at = i * size % (len(stream) - size + 1)
        return stream[at:at + size].view(rows, seq).to(device)

    def once(checkpointed, kernels):
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        elif model.is_gradient_checkpointing:
            model.gradient_checkpointing_disable()
        with sdpa_kernel(kernels):
            return measure(a, step, ids_of, device)

    tries = [(False, [SDPBackend.FLASH_ATTENTION]), (True, [SDPBackend.FLASH_ATTENTION]), (False, [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])]
    why, refused = "", False
    for checkpointed, kernels in tries:
        flash = kernels == [SDPBackend.FLASH_ATTENTION]
        if flash == refused:
            continue
        try:
            found = once(checkpointed, kernels)
            driver = driver_used(device)
            used = None if driver is None or before is None else driver - before
            return {"checkpointed": checkpointed, "attention": "flash" if flash else "not flash", "optimizer": source, "driver": used, **found}
        except torch.OutOfMemoryError as error:
            why = f"out of memory: {str(error).splitlines()[0]}"
        except RuntimeError as error:
            if "no available kernel" not in str(error).lower():
                raise
            why, refused = str(error).splitlines()[0], True
        for p in model.parameters():
            p.grad = None
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    raise RuntimeError(why)


def main():
    a = parse()
    device = torch.device(a.device)
    before = driver_used(device)
    transformers.logging.set_verbosity_error()
    say(limits={"products": product_peak(a.edge, device)}, versions={"torch": torch.__version__, "transformers": transformers.__version__, "attention": "sdpa, flash"})
    config = transformers.LlamaConfig.from_json_file(a.config)
    made, of = None, None
    for cell in a.cells.split(","):
        way, shape = cell.split(":")
        if way != of:
            made = None  # before the next one is built
            model = build(config, device)
            made, of = (model, *stepper(way, model, a.lr)), way
            del model
        try:
            say(cell=cell, **attempt(a, way, tuple(int(x) for x in shape.split("x")), made, before))
        except Exception as error:  # noqa: BLE001  one cell's failure must not cost the others
            say(cell=cell, failed=f"{type(error).__name__}: {str(error)[:500]}")


if __name__ == "__main__":
    main()
