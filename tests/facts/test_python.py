"""From Python: loaders, tensors and names go in, and what was asked for comes out."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import normwise as nw
from normwise.attacks import STRONGEST
from normwise.data import CORRUPTIONS
from normwise.utils import batches
from normwise.utils.batches import as_batches
from normwise.utils.model_state import refuse_lazy, untouched
from toys import THREAT, Stripes, balanced, images, trained

X = images(40)
MODEL = balanced()
Y = MODEL(X).argmax(1)
FORMS = {
    "batches": lambda: as_batches((X, Y)),
    "loader": lambda: DataLoader(TensorDataset(X, Y), batch_size=16),
    "dataset": lambda: TensorDataset(X, Y),
    "pairs": lambda: [(X[:16], Y[:16]), (X[16:], Y[16:])],
    "tensors": lambda: (X, Y),
    "generator": lambda: iter([(X, Y)]),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_every_form_are_judged_alike(form):
    result = nw.evaluate(MODEL, FORMS[form](), THREAT, nw.PGD(steps=5))
    assert result.clean_accuracy.value == 1
    assert result.evaluation.n == 40
    assert result.robust_accuracy.value < 1
    assert nw.measure_coupling(MODEL, FORMS[form]()).coupled is False
    (patient,) = nw.diagnose({"net": MODEL}, FORMS[form](), THREAT, [])
    assert patient.coupled is False
    assert nw.diagnose(MODEL, FORMS[form](), THREAT, []) == [replace(patient, model="Small")]
    made = nw.recalibrate(MODEL, FORMS[form]())
    assert torch.isfinite(made.norm.running_mean).all()


def test_what_is_no_rows_is_named():
    for rows, reason in (
        ("abc", "a batch is a str"),
        (3, "the data are a int"),
        (X, "the data are a Tensor"),
        ([[1, 2]], "two tensors"),
    ):
        with pytest.raises(ValueError, match=reason):
            nw.evaluate(MODEL, rows, THREAT)


def test_without_attacks_an_evaluation_is_as_hard_as_the_command_lines():
    e = nw.evaluate(MODEL, (X, Y), THREAT).evaluation
    assert [one["name"] for one in e.attacks] == ["fgsm", "pgd"]
    assert [one["name"] for one in e.strongest] == [one.name for one in STRONGEST]
    assert nw.evaluate(MODEL, (X, Y), THREAT, [nw.FGSM()]).evaluation.strongest == []


def test_a_result_says_what_it_is_in_few_lines():
    result = nw.evaluate(MODEL, (X, Y), THREAT, nw.PGD(steps=2))
    lines = str(result).splitlines()
    assert len(lines) == 6
    assert lines[0].split() == ["data", "40", "images"]
    assert "linf, eps 0.05" in lines[1]
    assert str(result.robust_accuracy) in lines[4]
    assert lines[5].endswith("independent")
    assert result._repr_html_().count("<tr>") == 6


def test_images_that_look_normalized_are_told_from_others():
    with pytest.raises(ValueError, match=r"look normalized.*nw\.Standardize"):
        nw.evaluate(MODEL, ((X - 0.5) / 0.25, Y), THREAT)
    with pytest.raises(ValueError, match="divide by 255"):
        nw.evaluate(MODEL, (255 * X, Y), THREAT)
    with pytest.raises(ValueError, match=r"cannot train: .*look normalized"):
        nw.fit(trained(), ((X - 0.5) / 0.25, Y), nw.Standard(), THREAT, nw.Schedule(epochs=1), seed=0)
    inside = nn.Sequential(nw.Standardize((0.5, 0.5), (0.25, 0.25)), MODEL).eval()
    assert nw.evaluate(inside, (X, Y), THREAT, nw.FGSM()).evaluation.n == 40


def test_a_loader_trains_goes_on_and_ends_alike(tmp_path):
    x, y = Stripes().arrays()[:2]

    def loader():
        return DataLoader(TensorDataset(x, y), batch_size=24, shuffle=True)

    how = nw.Standard(), THREAT, nw.Schedule(epochs=8, optimizer="adamw", lr=0.01, decay="constant")
    made, training = nw.fit(trained(), loader(), *how, seed=0)
    assert (made(x).argmax(1) == y).double().mean() > 0.6
    assert training.best_epoch == training.epochs == 8
    short = nw.Standard(), THREAT, nw.Schedule(epochs=8, optimizer="adamw", lr=0.01, decay="constant")

    class Stop(Exception):
        pass

    def stop(text, done, total):
        if text.startswith("epoch 3/8:"):
            raise Stop

    with pytest.raises(Stop):
        nw.fit(trained(), loader(), *short, seed=0, options=nw.FitOptions(folder=tmp_path, report=stop))
    again, _ = nw.fit(trained(), loader(), *short, seed=0, options=nw.FitOptions(folder=tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(made.state_dict().values(), again.state_dict().values(), strict=True))


def test_an_attack_alone_returns_images():
    x_adv = nw.attack(MODEL, X, Y, THREAT, nw.PGD(steps=5))
    assert (MODEL(x_adv).argmax(1) != Y).any()
    assert (x_adv - X).abs().max() <= 0.05 + 1e-6
    assert nw.attack(MODEL, X[:1], Y[:1], THREAT).shape == X[:1].shape
    plan = nw.AttackPlan(THREAT, [nw.FGSM(), nw.PGD(steps=5)], goal="targeted")
    with pytest.raises(ValueError, match="seed is given beside a plan, which has its own; give it in the plan"):
        nw.attack(MODEL, X, Y, plan, seed=0)
    weak, strong = nw.PGD(steps=1), nw.PGD(steps=5)
    both, every = nw.AttackPlan(THREAT, [weak], strongest=[strong]), nw.AttackPlan(THREAT, [weak, strong])
    assert nw.attack(MODEL, X, Y, both).equal(nw.attack(MODEL, X, Y, every))
    assert not nw.attack(MODEL, X, Y, both).equal(nw.attack(MODEL, X, Y, nw.AttackPlan(THREAT, [weak])))
    assert ((nw.attack(MODEL, X, Y, plan) - X).abs().amax() - THREAT.eps).abs() < 1e-6


def test_norms_by_name_and_every_choice_at_the_door():
    assert nw.convert(MODEL, "rnt").norm.power == nw.convert(MODEL, nw.RNT()).norm.power
    with pytest.raises(ValueError, match="no norm is named 'rmt'"):
        nw.convert(MODEL, "rmt")
    for registry in (nw.ATTACKS, nw.THREATS, nw.NORMS, nw.MODELS, nw.RECIPES, nw.DATA):
        for kind in registry.values():
            if kind.__module__.startswith("normwise."):
                assert getattr(nw, kind.__name__) is kind
    assert nw.Linf(0.05) == nw.Linf(eps=0.05)
    assert dir(nw) == sorted([*nw.__all__, "__version__"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_of_a_loader_more_images_than_are_held_lie_in_a_file_and_are_the_same(dtype, monkeypatch):
    pairs = [(X[i : i + 5].to(dtype), Y[i : i + 5]) for i in range(0, len(X), 5)]
    monkeypatch.setattr(batches, "HELD", pairs[0][0].nbytes)
    kept = as_batches(iter(pairs))
    assert [batch.x is x for batch, (x, _) in zip(kept, pairs, strict=True)] == [True] + [False] * 7
    kept[1].x.add_(1)  # of this process alone: the file does not change, nor do the images after it
    for batch, (x, y) in zip(kept[2:], pairs[2:], strict=True):
        assert torch.equal(batch.x, x)
        assert torch.equal(batch.y, y)
    assert all(batch.x is x for batch, (x, _) in zip(as_batches(pairs), pairs, strict=True))  # they are in memory as it is


WRONG = {  # what newcomers give: images, labels, and what they are told, by evaluate and fit alike
    "0 to 255": (255 * X, Y, "divide by 255"),
    "bytes": ((255 * X).byte(), Y, "divide by 255"),
    "normalized": ((X - 0.5) / 0.25, Y, r"nw\.Standardize\(mean, std\)"),
    "one-hot": (X, torch.eye(3, dtype=torch.long)[Y], r"y\.argmax\(1\)"),
    "labels as a column": (X, Y[:, None], r"y\.flatten\(\)\.long\(\)"),
    "labels from 1": (X, Y + 1, "labels from 1 to 3"),
    "float64": (X.double(), Y, r"images\.float\(\) and model\.float\(\)"),
    "channels last": (X[:, :1].repeat(1, 3, 1, 1).permute(0, 2, 3, 1), Y, r"permute\(0, 3, 1, 2\)"),
}


@pytest.mark.parametrize(("x", "y", "reason"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_right_is_one_clear_line(x, y, reason):
    schedule = nw.Schedule(epochs=1, validate_every=0)
    fit = lambda *given: nw.fit(given[0], given[1], nw.Standard(), given[2], schedule, seed=0)  # noqa: E731
    for use in (nw.evaluate, nw.audit, fit, lambda net, *given: nw.diagnose({"net": net}, *given, [])):
        with pytest.raises(ValueError, match=reason):
            use(trained(), (x, y), nw.Linf(0.1))


@pytest.mark.parametrize("what", ["weight", "running_mean"])
def test_weights_made_in_inference_mode_are_refused_in_one_line(what):
    def made():
        model = balanced()
        with torch.inference_mode():
            new = getattr(model.norm, what).clone()
            delattr(model.norm, what)
            setattr(model.norm, what, nn.Parameter(new) if what == "weight" else nn.Buffer(new))
        return model

    reason = (
        rf"norm\.{what} was made under torch\.inference_mode\(\).*; build, load or clone the model outside inference_mode"
    )
    for use in (
        lambda: nw.evaluate(made(), (X, Y), THREAT, nw.FGSM()),
        lambda: nw.evaluate(MODEL, (X, Y), THREAT, nw.FGSM(), craft_on=made()),
        lambda: nw.audit(made(), (X, Y), THREAT),
        lambda: nw.diagnose(made(), (X, Y), THREAT, []),
    ):
        with pytest.raises(ValueError, match=reason):
            use()


def test_weights_are_no_network():
    with pytest.raises(ValueError, match=r"of type OrderedDict.*load_state_dict"):
        refuse_lazy(trained().state_dict())


class Adapts(nn.Module):
    """Follows the mean of what it sees: in a tensor that is no buffer, or None at first."""

    def __init__(self, first):
        super().__init__()
        self.inner, self.seen = balanced(), first

    def forward(self, x):
        self.seen = 0.5 * (x.mean() if self.seen is None else self.seen) + 0.5 * x.mean().detach()
        return self.inner(x - self.seen)


class Keeps(nn.Module):
    """Leaves a picture of what it saw, which nothing reads."""

    def __init__(self):
        super().__init__()
        self.inner, self.picture = balanced(), torch.zeros(1)

    def forward(self, x):
        self.picture = x.mean((2, 3)).detach()
        return self.inner(x)


@pytest.mark.parametrize("first", [torch.zeros(()), None], ids=["tensor", "none"])
def test_a_network_that_remembers_without_buffers_is_seen_and_left_as_it_was(first):
    model = Adapts(first)
    with pytest.raises(ValueError, match="buffers, or tensors that it holds"):
        nw.evaluate(model, (X, Y), THREAT, nw.FGSM())
    plan = nw.AttackPlan(THREAT, (nw.FGSM(),), stateful="restore")
    found = [nw.evaluate(model, (X, Y), plan).evaluation for _ in range(2)]
    assert found[0].coupling["stateful"]
    assert found[0].robust_accuracy == found[1].robust_accuracy
    assert model.seen is first
    kept = nw.evaluate(quiet := Keeps(), (X, Y), THREAT, nw.FGSM()).evaluation
    assert not kept.coupling["stateful"]
    assert not quiet.picture.any()


class Writes(nn.Module):
    def __init__(self, page):
        super().__init__()
        self.page = page

    def forward(self, x):
        self.page.copy_(x.detach().mean((1, 2, 3))[:, None][:1])
        return x


class Reads(Writes):
    def forward(self, x):
        return balanced()(x) + self.page


@pytest.mark.parametrize("registered", [False, True], ids=["attributes", "buffer"])
def test_modules_that_share_a_tensor_share_its_copy(registered):
    model = nn.Sequential(Writes(page := torch.zeros(1, 1)), Reads(page))
    if registered:
        del model[0].page
        model[0].register_buffer("page", page)
    x = images(1)
    with torch.no_grad(), untouched(model, nw.generator(0)):
        inside = model(x)
    assert not page.any()
    assert torch.equal(inside, balanced()(x) + x.mean())


class Crowd(nn.Module):
    """Reads the batch where it is large enough to trust."""

    def __init__(self, least):
        super().__init__()
        self.inner, self.least = balanced(), least

    def forward(self, x):
        return self.inner(x - x.mean(0, keepdim=True) if len(x) >= self.least else x)


def test_rows_that_are_coupled_in_large_batches_alone_are_found():
    rows = images(80)
    found = nw.evaluate(Crowd(65), [(rows, MODEL(rows).argmax(1))], THREAT, nw.FGSM()).evaluation
    assert (found.coupled, found.coupling["rows"]) == (True, 80)
    assert not nw.evaluate(Crowd(81), [(rows, MODEL(rows).argmax(1))], THREAT, nw.FGSM()).evaluation.coupled


@pytest.mark.parametrize("form", ["dataset", "tensors"])
def test_single_rows_are_shuffled_in_batches_of_the_schedule_and_read_anew(form):
    seen = []

    class Seen(nw.Standard):
        def loss(self, model, x, y, threat, *, generator):
            seen.append(x)
            return super().loss(model, x, y, threat, generator=generator)

    nw.fit(trained(), FORMS[form](), Seen(), THREAT, nw.Schedule(epochs=2, batch_size=16), seed=0)
    assert [len(x) for x in seen] == [16, 16, 8] * 2
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert not torch.equal(first, second)
    assert torch.equal(first.flatten(1).sum(1).sort()[0], second.flatten(1).sum(1).sort()[0])


def test_an_audit_leaves_the_mode_and_refuses_a_claim_that_is_no_share():
    model = trained().train()
    nw.audit(model, (X, Y), THREAT, options=nw.AuditOptions(budget=0.02, twin=None))
    assert model.training
    for claim in (50, -0.1, float("nan")):
        with pytest.raises(ValueError, match="give the claimed robust accuracy as a share"):
            nw.audit(model, (X, Y), THREAT, claim=claim)


def test_pixels_are_checked_wherever_images_are_made():
    draws = nw.generator(0)
    for use in (
        lambda x: CORRUPTIONS["contrast"](x, 3, generator=draws),
        lambda x: nw.Universal(updates=1).fit(trained(), [(x, Y)], nw.Patch(size=2), generator=draws),
    ):
        with pytest.raises(ValueError, match=r"in \[0, 1\]; got pixels from"):
            use(255 * X)
    with pytest.raises(ValueError, match=r"to 1.00000012; expected \[0, 1\]: clamp them"):
        nw.evaluate(MODEL, (X * 1.0000001, Y), THREAT)


def test_batches_of_other_shapes_are_refused_and_training_needs_no_gradient_mode():
    large = nn.functional.interpolate(X, size=(8, 8))
    for other in (large, X.double()):
        with pytest.raises(ValueError, match=r"in batch 1, and .* in the first; give images of one shape and dtype"):
            nw.evaluate(MODEL, [(X, Y), (other, Y)], THREAT, nw.FGSM())
    with torch.no_grad():
        assert nw.fit(trained(), (X, Y), nw.Standard(), THREAT, nw.Schedule(epochs=1), seed=0).training.epochs == 1
