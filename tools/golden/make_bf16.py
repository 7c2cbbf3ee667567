"""Makes fixtures/rules_bf16: every update rule on bf16 weights, written out from its formula in PyTorch.

Run by hand, `python make_bf16.py`, with torch and safetensors; what it writes is committed. Each step widens the weights to float32, computes
the rule there, tensor by tensor, and rounds to bf16, to nearest even. State stays float32. Nothing of this repository is imported.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file

STEPS = 20
KEPT = (1, 5, 20)
HERE = pathlib.Path(__file__).parent / "fixtures" / "rules_bf16"


def f32(x):
    """The float32 next to x, as a Python float: hyper-parameters that reach a kernel as float32."""
    return torch.tensor(x, dtype=torch.float32).item()


def step_lomo(p, g, state, t, h, wd):
    return p * f32(1 - h["lr"] * wd) - g * h["lr"]


def step_adamw(p, g, state, t, h, wd):
    b1, b2 = h["beta1"], h["beta2"]
    state["m"] = state.get("m", torch.zeros_like(p)) * b1 + g * (1 - b1)
    state["v"] = state.get("v", torch.zeros_like(p)) * b2 + g * g * (1 - b2)
    direction = (state["m"] / (1 - b1**t)) / ((state["v"] / (1 - b2**t)).sqrt() + h["eps"])
    return p * f32(1 - h["lr"] * wd) - direction * h["lr"]


def step_adalomo(p, g, state, t, h, wd):
    keep = 1 - t**-0.8
    square = g * g + 1e-30
    blend = lambda name, new: state.get(name, torch.zeros_like(new)) * keep + new * (1 - keep)
    if p.dim() == 2:
        state["r"], state["c"] = blend("r", square.mean(1)), blend("c", square.mean(0))
        u = g / (state["r"] / state["r"].mean()).sqrt().unsqueeze(1) / state["c"].sqrt().unsqueeze(0)
    else:
        state["v"] = blend("v", square)
        u = g / state["v"].sqrt()
    size = lambda x: x.double().square().mean().sqrt().item()
    eta = h["lr"] * max(1e-3, size(p))
    return p * f32(1 - eta * wd) - u * f32(eta / max(1.0, size(u)))


RULES = {"lomo": step_lomo, "sgd": step_lomo, "adamw": step_adamw, "adalomo": step_adalomo}
ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
RUNS = {
    "lomo": {"rule": "lomo", "lr": 0.01},
    "lomo_small_steps": {"rule": "lomo", "lr": 1e-4},
    "lomo_weight_decay": {"rule": "lomo", "lr": 0.01, "weight_decay": 0.2},
    "lomo_clip_value": {"rule": "lomo", "lr": 0.02, "clip_value": 0.5},
    "lomo_clip_norm": {"rule": "lomo", "lr": 0.1, "clip_norm": 1.0},
    "lomo_all": {"rule": "lomo", "lr": 0.1, "weight_decay": 0.2, "clip_value": 0.5, "clip_norm": 1.0},
    "sgd": {"rule": "sgd", "lr": 0.01},
    "adalomo": {"rule": "adalomo", "lr": 0.005},
    "adalomo_all": {"rule": "adalomo", "lr": 0.005, "weight_decay": 0.2, "clip_value": 0.5},
    "adamw": {"rule": "adamw", "lr": 0.003, **ADAM},
    "adamw_all": {"rule": "adamw", "lr": 0.003, "weight_decay": 0.1, "clip_value": 0.5, "clip_norm": 1.0, **ADAM},
}


def clipped(grads, value, norm):
    """What the rule sees, and the coefficient: the norm is that of all gradients together, before clamping."""
    coefficient = 1.0
    if norm is not None:
        total = sum(g.double().square().sum().item() for g in grads.values()) ** 0.5
        coefficient = f32(min(1.0, norm / (total + 1e-6)))
    limit = {n: g if value is None else g.clamp(-value, value) for n, g in grads.items()}
    return {n: g * coefficient for n, g in limit.items()}, coefficient


def run(start, gradients, about, dtype):
    """Weights after every step of KEPT, and the clip coefficients."""
    hyper = {**about, "lr": f32(about["lr"])}
    weights, states, kept, coefficients = dict(start), {n: {} for n in start}, {}, []
    for t in range(1, STEPS + 1):
        grads, coefficient = clipped(gradients[(t - 1) % len(gradients)], about.get("clip_value"), about.get("clip_norm"))
        coefficients.append(coefficient)
        for n, p in weights.items():
            decay = about.get("weight_decay", 0.0) if p.dim() >= 2 else 0.0
            weights[n] = RULES[about["rule"]](p.float(), grads[n], states[n], t, hyper, decay).to(dtype)
        if t in KEPT:
            kept[t] = dict(weights)
    return kept, coefficients


def main():
    torch.manual_seed(20)
    shapes = {"matrix": (24, 40), "tall": (64, 6), "vector": (40,), "small": (4, 5), "holes": (10, 14)}
    start = {n: torch.randn(s) for n, s in shapes.items()}
    start["small"] *= 1e-4  # below AdaLomo's eps2
    start = {n: p.bfloat16() for n, p in start.items()}
    gradients = []
    for i in range(5):
        grads = {n: torch.randn(s) * 2.0 ** (1 - i) for n, s in shapes.items()}
        grads["holes"][3, :] = 0
        grads["holes"][:, 5] = 0
        gradients.append(grads)
    tensors = {f"start/{n}": p for n, p in start.items()}
    tensors |= {f"gradient/{i + 1}/{n}": g for i, grads in enumerate(gradients) for n, g in grads.items()}
    described = {}
    for name, about in RUNS.items():
        kept, coefficients = run(start, gradients, about, torch.bfloat16)
        wide, _ = run({n: p.float() for n, p in start.items()}, gradients, about, torch.float32)
        difference = torch.cat([(kept[STEPS][n].double() - wide[STEPS][n].double()).flatten() for n in start])
        whole = torch.cat([wide[STEPS][n].double().flatten() for n in start])
        tensors |= {f"{name}/{t}/{n}": p.contiguous() for t, weights in kept.items() for n, p in weights.items()}
        described[name] = {
            "clip_value": None, "clip_norm": None, "decays": "matrices" if about.get("weight_decay") else "none", **about,
            "clip_coefficient": coefficients if about.get("clip_norm") else None,
            "float32_run_rel_l2": float(f"{(difference.norm() / whole.norm()).item():.3g}"),
        }
    HERE.mkdir(parents=True, exist_ok=True)
    save_file(tensors, HERE / "rules.safetensors")
    about = {"made_with": f"torch {torch.__version__.split('+')[0]}", "dtype": "bf16", "steps": STEPS, "kept": list(KEPT), "gradients": len(gradients), "runs": described}
    (HERE / "rules.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
