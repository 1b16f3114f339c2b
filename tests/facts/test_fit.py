"""The one loop: resuming, choosing a checkpoint, averaging, schedules."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from normwise.models import checkpoints
from normwise.models.nfresnet import ScaledStdConv2d
from normwise.norms import GN, MBN, RNT
from normwise.norms.surgery.adaptation import with_share
from normwise.norms.surgery.conversion import convert
from normwise.norms.surgery.trainable import only
from normwise.norms.surgery.unmapped import unmapped
from normwise.seeding import generator
from normwise.threats import Linf
from normwise.training import schedule as scheduling
from normwise.training.loop import fit
from normwise.training.options import FitOptions
from normwise.training.recipes import Adversarial, Standard
from normwise.training.schedule import Schedule
from normwise.utils.model_state import digest
from toys import Stripes, images, labels, trained

DATA = Stripes(validation_size=24)
FULL = Schedule(epochs=4, batch_size=16, lr=0.05, decay="onecycle", ema=0.9, crop=1, flip=True)


class Stopped(Exception):
    pass


@pytest.mark.parametrize(("emulated", "precision"), [(True, "bf16"), (False, "bf16"), (True, "fp32")])
def test_a_processor_that_emulates_bfloat16_is_named_where_it_is_asked_for(monkeypatch, emulated, precision):
    monkeypatch.setattr("normwise.training.schedule.emulates_bfloat16", lambda device: emulated)
    reports, schedule = [], replace(FULL, epochs=1, precision=precision)
    options = FitOptions(report=lambda text, done, total: reports.append(text))
    fit(trained(), DATA, Standard(), Linf(eps=0.1), schedule, seed=0, options=options)
    assert any(text.startswith("time: ") for text in reports) == (emulated and precision == "bf16"), reports


@pytest.mark.parametrize("every", [300, -1], ids=["epochs", "steps"])
@pytest.mark.parametrize("recipe", [Standard(), Adversarial(steps=2)], ids=lambda r: r.name)
def test_a_stopped_run_ends_like_one_that_was_not(tmp_path, recipe, every):
    def stop(text, done, total):
        if done == 9 * total // 16:  # in the middle of the third epoch
            raise Stopped

    model = trained()  # with dropout: the noise of training is part of what must be the same
    whole = fit(model, DATA, recipe, Linf(eps=0.1), FULL, seed=3, options=FitOptions(folder=tmp_path / "whole"))
    with pytest.raises(Stopped):
        fit(
            model,
            DATA,
            recipe,
            Linf(eps=0.1),
            FULL,
            seed=3,
            options=FitOptions(folder=tmp_path / "cut", report=stop, every=every),
        )
    assert len((tmp_path / "cut" / "log.jsonl").read_text().splitlines()) == 2
    steps: list[int] = []
    again = FitOptions(folder=tmp_path / "cut", report=lambda text, done, total: steps.append(done))
    resumed = fit(model, DATA, recipe, Linf(eps=0.1), FULL, seed=3, options=again)
    assert digest(resumed.model) == digest(whole.model)
    assert steps[0] == {300: 11, -1: steps[-1] * 9 // 16}[every]  # 5 steps make an epoch
    assert resumed.training.forwards == whole.training.forwards
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("whole", "cut")
    ]
    for one, other in zip(*logs, strict=True):
        assert one.pop("seconds") > 0
        other.pop("seconds")
        assert one == other


def test_a_loader_is_resumed_within_an_epoch(tmp_path):
    """It shuffles by torch's random state, which dropout draws from too."""

    def stop(text, done, total):
        if done == 7:
            raise Stopped

    rows = DataLoader(TensorDataset(images(48), labels(48)), batch_size=10, shuffle=True)
    settings = (trained(), rows, Standard(), Linf(), FULL)
    whole = fit(*settings, seed=0).model
    with pytest.raises(Stopped):
        fit(*settings, seed=0, options=FitOptions(folder=tmp_path, report=stop, every=-1))
    assert digest(fit(*settings, seed=0, options=FitOptions(folder=tmp_path)).model) == digest(whole)


def test_two_trainings_in_one_folder_write_the_same(tmp_path):
    settings, found = (trained(), DATA, Standard(), Linf(), FULL), []

    def report(text, done, total):
        if done == 9 and not found:  # the second begins, and ends before the first
            found.append(fit(*settings, seed=0, options=FitOptions(folder=tmp_path)).model)

    first = fit(*settings, seed=0, options=FitOptions(folder=tmp_path, report=report)).model
    assert digest(first) == digest(found[0]) == digest(fit(*settings, seed=0).model)
    assert [json.loads(line)["epoch"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4]


def test_the_scale_of_half_precision_is_resumed(tmp_path, monkeypatch):
    """On a CPU in float32, where a scale of 2^k changes no bit: so it is read from the state."""
    monkeypatch.setattr(scheduling, "autocast", lambda schedule, device: torch.autocast("cpu", enabled=False))
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0, growth_interval=3))
    schedule = replace(FULL, precision="fp16")

    def stop(text, done, total):
        if done == 7:
            raise Stopped

    fit(trained(), DATA, Standard(), Linf(), schedule, seed=0, options=FitOptions(folder=tmp_path / "whole"))
    with pytest.raises(Stopped):
        fit(
            trained(),
            DATA,
            Standard(),
            Linf(),
            schedule,
            seed=0,
            options=FitOptions(folder=tmp_path / "cut", report=stop, every=-1),
        )
    fit(trained(), DATA, Standard(), Linf(), schedule, seed=0, options=FitOptions(folder=tmp_path / "cut"))
    whole, cut = (torch.load(tmp_path / name / "last.pt", weights_only=True)["scaler"] for name in ("whole", "cut"))
    assert whole == cut
    assert whole["scale"] == 2.0 * 2 ** (20 // 3)


def test_parts_of_a_batch_add_up_to_its_gradient():
    model, schedule = trained(GN(groups=4)), replace(FULL, epochs=1, crop=0, flip=False)
    model.drop.p = 0.0
    one, three = (
        fit(model, DATA, Standard(), Linf(), replace(schedule, accumulate=parts), seed=0).model for parts in (1, 3)
    )
    torch.testing.assert_close(three.state_dict(), one.state_dict())


def test_another_seed_gives_another_network():
    one, two = (fit(trained(), DATA, Standard(), Linf(), FULL, seed=seed).model for seed in (0, 1))
    assert digest(one) != digest(two)


def test_it_learns_and_keeps_the_last_epoch_as_good_as_the_best(tmp_path):
    fitted = fit(
        trained(),
        DATA,
        Standard(),
        Linf(),
        Schedule(epochs=12, batch_size=16, lr=0.1),
        seed=0,
        options=FitOptions(folder=tmp_path),
    )
    scores = [json.loads(line)["validation_clean"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    best = max(scores)
    assert best > 0.8
    good = [epoch for epoch, score in enumerate(scores, 1) if score >= best - (best * (1 - best) / 24) ** 0.5]
    assert fitted.training.best_epoch == good[-1]
    kept = scores[good[-1] - 1]
    assert fitted.training.validation == {"clean": kept}
    right = sum(int((fitted.model(b.x).argmax(1) == b.y).sum()) for b in DATA.validation(batch_size=24))
    assert right / 24 == kept


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [((0.5, 0.5, 0.5), 3), ((0.5, 0.45, 0.2), 2), ((0.2, 0.5, 0.3), 2), ((0.5, 0.42, 0.3), 2), ((0.0, 0.0, 0.0), 3)],
)
def test_differences_within_a_standard_error_do_not_choose(monkeypatch, scores, chosen):
    given = iter(scores)  # of 24 rows: a standard error of 0.5 is 0.102
    monkeypatch.setattr("normwise.training.validation.Validation.of", lambda self, model: ({"clean": next(given)}, (0, 0)))
    schedule = Schedule(epochs=3, batch_size=16, lr=0.01)
    assert fit(trained(), DATA, Standard(), Linf(), schedule, seed=0).training.best_epoch == chosen


def test_a_robust_recipe_is_chosen_by_robust_accuracy():
    fitted = fit(trained(), DATA, Adversarial(steps=2), Linf(eps=0.1), FULL, seed=0)
    assert set(fitted.training.validation) == {"clean", "robust"}


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_place(tmp_path):
    with pytest.raises(ValueError, match=r"the loss became (nan|inf) in epoch \d, batch \d"):
        fit(trained(), DATA, Standard(), Linf(), Schedule(lr=1e3, batch_size=16, epochs=9), seed=0)


def test_a_checkpoint_is_named_only_where_there_is_one(tmp_path, monkeypatch):
    standard = Standard.loss
    monkeypatch.setattr(Standard, "loss", lambda self, *args, generator: broken(standard(self, *args, generator=generator)))

    def broken(cost):
        nonlocal left
        left -= 1
        return cost._replace(loss=cost.loss * (1.0 if left >= 0 else torch.nan))

    for folder, ending in ((None, "epoch 2, batch 1; lower"), (tmp_path, "; the last good checkpoint is of epoch 1; lower")):
        left = DATA.train_batches(16)
        with pytest.raises(ValueError, match=ending):
            fit(
                trained(),
                DATA,
                Standard(),
                Linf(),
                Schedule(batch_size=16, epochs=3),
                seed=0,
                options=FitOptions(folder=folder),
            )


@pytest.mark.parametrize("buffers", ["average", "copy"])
def test_the_average_is_its_formula_and_treats_buffers_as_told(buffers):
    model = trained().train()
    average = scheduling.average(model, Schedule(ema=0.75, ema_buffers=buffers))
    weights, means = [], []
    for step in range(4):
        with torch.no_grad():
            model.linear.weight.add_(step)
            model(images(seed=step))
        average.update_parameters(model)
        weights.append(model.linear.weight.detach().clone())
        means.append(model.norm.running_mean.clone())
    expected, mean = weights[0], means[0]
    for weight, latest in zip(weights[1:], means[1:], strict=True):
        expected = 0.75 * expected + 0.25 * weight
        mean = 0.75 * mean + 0.25 * latest
    torch.testing.assert_close(average.module.linear.weight.detach(), expected)
    torch.testing.assert_close(average.module.norm.running_mean, mean if buffers == "average" else means[-1])


@pytest.mark.parametrize("buffers", ["average", "copy"])
def test_the_average_of_a_converted_network_knows_what_training_found_out(buffers, tmp_path):
    model = convert(trained(), RNT())  # its running range is not known before the first step
    schedule = Schedule(epochs=1, batch_size=16, lr=0.01, ema=0.9, ema_buffers=buffers)
    fitted = fit(model, DATA, Standard(), Linf(), schedule, seed=0, options=FitOptions(folder=tmp_path)).model
    assert not unmapped(fitted)
    again = trained(RNT())
    checkpoints.load_into(again, checkpoints.weights(tmp_path / "model.safetensors"))
    torch.testing.assert_close(again(images()), fitted(images()))


def test_the_average_of_whole_numbers_is_the_latest():
    model = nn.Module()
    model.register_parameter("weight", nn.Parameter(torch.zeros(2)))
    model.register_buffer("index", torch.arange(100))
    model.register_buffer("flag", torch.tensor(True))
    average = scheduling.average(model, Schedule(ema=0.9))
    average.update_parameters(model)
    model.flag.fill_(False)
    average.update_parameters(model)
    assert torch.equal(average.module.index, model.index)
    assert not average.module.flag


@pytest.mark.parametrize(
    ("decay", "at"),  # learning rate after 0, 25, 50, 75 of 100 steps, in units of the largest
    [("constant", [1, 1, 1, 1]), ("cosine", [1, 0.853553, 0.5, 0.146447]), ("multistep", [1, 1, 0.1, 0.01])],
)
def test_learning_rates_are_their_formulas(decay, at):
    schedule = Schedule(lr=0.2, decay=decay)
    optimizer = scheduling.optimizer(trained(), schedule)
    rates = scheduling.learning_rate(optimizer, schedule, 100)
    seen = []
    for _ in range(100):
        seen.append(rates.get_last_lr()[0] / 0.2)
        optimizer.step()
        rates.step()
    assert [seen[k] for k in (0, 25, 50, 75)] == pytest.approx(at, abs=1e-5)


def test_weight_decay_spares_norms_and_biases_when_told():
    groups = scheduling.optimizer(trained(), Schedule(decay_norms=False)).param_groups
    assert [group["weight_decay"] for group in groups] == [5e-4, 0]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert all(p.ndim == 1 for p in groups[1]["params"])


@pytest.mark.parametrize(
    ("model", "spared"),
    [
        (trained(MBN()), {"norm.weights", "norm.biases", "conv1.bias", "conv2.bias", "linear.bias"}),
        (nn.Sequential(ScaledStdConv2d(2, 3, 3), nn.RMSNorm(4)), {"0.gain", "0.bias", "1.weight"}),
        (only(trained(), "subset"), set()),
    ],
    ids=["routes", "gains", "subset"],
)
def test_what_weight_decay_spares_does_not_hang_on_its_shape(model, spared):
    groups = scheduling.optimizer(model, Schedule(decay_norms=False)).param_groups
    left = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert {name for name, p in model.named_parameters() if id(p) in left} == spared


@pytest.mark.parametrize(
    "options",
    [
        *({"epochs": 0}, {"momentum": 1.0}, {"batch_size": 1}, {"weight_decay": -1.0}, {"weight_decay": 1e308}),
        *({"lr": 0.0}, {"lr": float("nan")}, {"lr": 1e308}),
        *({"milestones": (80, 120)}, {"milestones": (0.0,)}, {"drop": -5.0}, {"drop": float("nan")}),
    ],
    ids=str,
)
def test_impossible_schedules_are_refused(options):
    with pytest.raises(ValueError, match=rf"schedule\.{next(iter(options))} is .*; give "):
        Schedule(**options)


def test_half_precision_where_there_is_none_is_refused():
    with pytest.raises(ValueError, match="fp16 needs a CUDA device"):
        fit(trained(), DATA, Standard(), Linf(), Schedule(precision="fp16", batch_size=16), seed=0)


def test_bfloat16_trains_too():
    fitted = fit(trained(), DATA, Standard(), Linf(), Schedule(precision="bf16", batch_size=16, epochs=2), seed=0)
    assert {p.dtype for p in fitted.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".th"])
def test_weights_of_every_kind_are_read(tmp_path, suffix):
    from safetensors.torch import save_file

    state = {f"module.{k}": v for k, v in trained().state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3}, path)
    model = trained(seed=1)
    checkpoints.load_into(model, checkpoints.weights(path))
    assert digest(model) == digest(trained())


class Evil:
    def __reduce__(self):
        import os

        return os.mkdir, ("evil",)


def test_weights_files_that_are_not_are_refused_and_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    torch.save(trained().state_dict(), tmp_path / "good.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "good.pt").read_bytes()[:3000])
    (tmp_path / "foreign.safetensors").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"linear.weight": torch.zeros(3, 8)}, tmp_path / "part.pt")
    for name, reason in [
        ("evil.pt", "it wants to run code"),
        ("cut.pt", "truncated"),
        ("foreign.safetensors", "is not a weights file"),
        ("list.pt", "holds no state dict"),
        ("none.pt", "no weights file"),
        ("part.pt", "lacks conv1.weight"),
    ]:
        with pytest.raises(ValueError, match=reason) as caught:
            checkpoints.load_into(trained(), checkpoints.weights(tmp_path / name))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil").exists()


def test_every_epoch_sees_the_rows_in_another_order():
    class Watched(Stripes):
        def train(self, *, batch_size, generator):
            for batch in super().train(batch_size=batch_size, generator=generator):
                seen.append(batch.ids.tolist())
                yield batch

    seen = []
    fit(trained(), Watched(), Standard(), Linf(), Schedule(epochs=2, batch_size=96, validate_every=0), seed=0)
    assert seen[0] != seen[1]
    assert sorted(seen[0]) == sorted(seen[1])


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_images_are_crafted_in_the_mode_that_is_asked_for(mode):
    modes = []
    model = trained().train()
    model.norm.register_forward_pre_hook(lambda module, args: modes.append(module.training))
    Adversarial(steps=3, craft_in=mode).loss(model, images(), labels(), Linf(), generator=generator(0))
    assert modes == [mode == "train"] * 3 + [True]


def test_the_state_of_another_version_is_refused(tmp_path):
    options = {"seed": 0, "options": FitOptions(folder=tmp_path)}
    fit(trained(), DATA, Standard(), Linf(), Schedule(epochs=1, batch_size=16, lr=0.1), **options)
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    del saved["about"]["code or attributes of the model"]
    torch.save(saved, tmp_path / "last.pt")  # of before it was kept
    fit(trained(), DATA, Standard(), Linf(), Schedule(epochs=1, batch_size=16, lr=0.1), **options)
    del saved["state"]["top"]
    torch.save(saved, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="another version of normwise wrote it"):
        fit(trained(), DATA, Standard(), Linf(), Schedule(epochs=1, batch_size=16, lr=0.1), **options)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"recipe": Adversarial(steps=2)}, 'recipe.name was "standard", not "adversarial"'),
        ({"recipe": Standard(label_smoothing=0.1)}, "recipe.label_smoothing was 0.0, not 0.1"),
        ({"threat": Linf(eps=0.2)}, "threat.eps was 0.1, not 0.2"),
        ({"schedule": Schedule(epochs=1, batch_size=16, lr=0.2)}, "schedule.lr was 0.1, not 0.2"),
        ({"seed": 1}, "seed was 0, not 1"),
        ({"data": Stripes(validation_size=12)}, "data was "),
        ({"model": trained(seed=1)}, "model was "),
        ({"model": with_share(trained(), 0.5)}, "code or attributes of the model was "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_state_of_another_training_is_refused_and_what_differs_is_named(tmp_path, changed, reason):
    run = {"model": trained(), "data": DATA, "recipe": Standard(), "threat": Linf(eps=0.1), "seed": 0}
    run |= {"schedule": Schedule(epochs=1, batch_size=16, lr=0.1), "options": FitOptions(folder=tmp_path)}
    first = fit(**run | {"model": trained().train()}).model  # in another mode it is the same
    assert digest(fit(**run | {"options": FitOptions(folder=tmp_path, card={"another": "card"})}).model) == digest(first)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(ValueError, match=f"last.pt cannot be resumed .*{reason}.*; give another folder, or delete it"):
        fit(**run | changed)
    assert (tmp_path / "last.pt").read_bytes() == before
