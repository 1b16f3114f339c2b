"""Examples of each verb: its help shows them."""

EXAMPLES = {
    "bench": (
        "normwise bench --norms bn,rnt --recipes standard,adversarial",
        "normwise bench --domain video --data.test_limit 100 --out runs/video",
    ),
    "train": (
        "normwise train digits --norm rnt --norm.power 0.5",
        "normwise train mine:network --data images.npz --recipe adversarial --threat.eps 8/255",
    ),
    "evaluate": (
        "normwise evaluate runs/train --attacks autoattack",
        "normwise evaluate mine:network --weights net.pt --data images.npz --threat.eps 8/255",
    ),
    "attack": (
        "normwise attack runs/train --threat l2 --threat.eps 0.5",
        'normwise attack runs/train --attacks "[{name: pgd, steps: 100, restarts: 5}]"',
    ),
    "audit": (
        "normwise audit runs/train --claim 0.53",
        "normwise audit runs/bn runs/rnt --jobs 2 --budget 20",
        "normwise audit mine:network --weights net.pt --data images.npz --threat.eps 8/255 --budget 10",
    ),
    "improve": (
        "normwise improve runs/train --budget 60",
        "normwise improve mine:network --weights net.pt --data images.npz --budget 30",
    ),
    "diagnose": (
        "normwise diagnose runs/bn runs/rnt --rows 100",
        "normwise diagnose runs/train --only drift,flips",
    ),
    "shifts": (
        "normwise shifts runs/train --adapt 0,0.5,1",
        "normwise shifts runs/bn runs/rnt --kinds fog,snow --severities 1,3,5",
    ),
    "selftest": (
        "normwise selftest",
        "normwise selftest runs/train --attack autoattack",
    ),
    "reproduce": (
        "normwise reproduce robustnorm --preset smoke",
        "normwise reproduce all --preset s --workers 2 --threads 1",
    ),
    "push": (
        "normwise push runs/train ada/digits-resnet8",
        "normwise push runs/train ada/digits-resnet8 --audit runs/audit --private true",
    ),
    "pull": (
        "normwise pull ada/digits-resnet8 --out runs/pulled",
        "normwise pull ada/digits-resnet8@main --out runs/main",
    ),
    "export": (
        "normwise export runs/train --out net.pt2",
        "normwise export runs/train --format onnx --out net.onnx",
    ),
    "list": ("normwise list norms", "normwise list attacks"),
    "report": ("normwise report runs/a runs/b", "normwise report runs/bench --out runs/page"),
    "status": ("normwise status runs/bench", "normwise status runs/reproduce --json true"),
}
