"""What others measured of the same claims, with where it can be read. It decides nothing here."""

from __future__ import annotations

EVIDENCE = {
    "2": "DIA (ICML 2023, arXiv 2301.12576): where statistics come from the batch, malicious images in it change the answers of others",
    "5": (
        "NoFrost's own weights, attacked by others (issue 2 of its repository), 8/255: APGD with 20 steps leaves 12.03%, with 100 steps "
        "5.29, AutoAttack 1.28. Xie and Yuille (ICLR 2020): BatchNorm trained without the clean images is 18.3 points more robust, so "
        "that the mixture is a weak baseline"
    ),
    "5b": (
        "Galloway et al. 2019 (their README), ResNet-110, CIFAR-10, about 1.5/255, PGD-20: 8.5% with BatchNorm, 38.1 with Fixup. Benz et "
        "al. 2021 (a figure of theirs), ResNet-18, PGD-10 in l2 0.25: about 10% with, 39 without; trained with PGD about 79 and 77"
    ),
    "8": "Frankle et al. (ICLR 2021): of random features, BatchNorm's parameters alone reach 82% on clean CIFAR-10 in deep networks",
    "10": (
        "Croce et al. (ICML 2022): of nine defences that adapt at test time none significantly improves on the network beneath. ABNN was "
        "not among them"
    ),
    "13": "Lo and Patel, MultiBN (preprint), 3D ResNeXt-101 on UCF101: 80.3% clean, 68.4 after PGD training",
}


def evidence_of(number: str) -> str:
    """What others measured of a claim, by its number; a claim about a network of its own (8-20) has its claim's."""
    return EVIDENCE.get(number.split("-")[0], "none found")
