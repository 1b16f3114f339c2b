"""One pattern for all images: what it is made from, how it lies, and what is known of it on paper."""

import base64
import dataclasses
import json

import pytest
import torch

from normwise.attacks import ATTACKS, Universal
from normwise.attacks.universal import _Placement, _read
from normwise.experiments.evaluation_run import Evaluate, run_evaluation
from normwise.experiments.patterns import PATTERNS, with_patterns
from normwise.records import read_result
from normwise.report import card
from normwise.seeding import generator
from normwise.threats import Frame, MultAV, Patch
from normwise.utils.model_state import digest
from toys import Linear, Stripes, images, labels, trained

FLAT = {"shrink": 1.0, "turn": 0.0}


def made(threat, model=None, **options):
    attack = Universal(updates=5, **options)
    return attack.fit(model or trained(), [(images(8), labels(8)), (images(5), labels(5))], threat, generator=generator(0))


@pytest.mark.parametrize("threat", [Patch(size=3), Frame(width=1)], ids=lambda t: t.name)
def test_every_image_shows_the_same_pattern(threat):
    attack, x = made(threat, **FLAT), images(10, seed=5)
    x_adv = attack(trained(), x, labels(10), threat, generator=generator(1)).x_adv
    region = threat.around(x, generator=generator(1, "other"))
    assert region.contains(x_adv).all()
    changed = [x_adv[row][:, (x_adv[row] != x[row]).any(0)].sort().values for row in range(10)]
    assert all(torch.equal(one, changed[0]) for one in changed)
    assert set((255 * changed[0]).round().int().flatten().tolist()) == set(
        (255 * _read(attack.pattern)).round().int().tolist()
    )


def test_to_make_a_pattern_leaves_the_model_and_the_random_state_as_they_were():
    model = trained().train()
    before, random_state = digest(model), torch.random.get_rng_state()
    made(Patch(size=2), model)
    assert digest(model) == before
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize("shape", [(2, 6, 6), (2, 3, 6, 6)], ids=["images", "clips"])
def test_against_a_linear_model_the_best_frame_is_known(shape):
    """Where all rows are of one class, each pixel of the frame goes to the end that lowers that class most."""
    model, threat = Linear(shape), Frame(width=1)
    x, y = images(6, shape), torch.ones(6, dtype=torch.long)
    attack = Universal(updates=40).fit(model, [(x, y)], threat, generator=generator(0))
    mask = threat.around(x, generator=generator(0)).mask[0]
    assert torch.equal(_read(attack.pattern), (model.w.view(shape)[mask] < 0).float())


@pytest.mark.parametrize("shape", [(9,), (2, 8, 8), (2, 3, 8, 8)], ids=["row", "image", "clip"])
@pytest.mark.parametrize("threat", [Patch(size=4), Frame(width=1), MultAV(within="patch", eps=0.5)], ids=lambda t: t.name)
def test_the_slope_of_the_pattern_is_that_of_its_pixels(threat, shape):
    """The images are linear in the pattern, as far as nothing is clipped, so that both products are equal; none leaves its square."""
    x = images(5, shape)
    region = threat.around(x, generator=generator(0))
    placement = _Placement(Universal(shrink=0.5, turn=45), region)
    count = int(region.mask[0].sum())
    assert region.contains(placement.images(torch.rand(count, generator=generator(1)))).all()
    if threat.name == "multav":
        return
    one, other = torch.rand(2, count, generator=generator(2))
    grad = torch.randn(x.shape, generator=generator(3))
    moved = ((placement.images(one) - placement.images(other)) * grad).sum()
    torch.testing.assert_close(moved, ((one - other) * placement.slope(one, grad)).sum(), rtol=1e-4, atol=1e-4)


def test_a_patch_is_shrunk_and_turned_within_its_square():
    region = Patch(size=20).around(torch.zeros(30, 1, 40, 40), generator=generator(0))

    def covered(**options):
        return _Placement(Universal(**options), region).images(torch.ones(400)).flatten(1).sum(1) / 400

    assert (covered(**FLAT) == 1).all()
    shrunk, turned = covered(shrink=0.5, turn=0.0), covered(shrink=1.0, turn=180.0)
    assert shrunk.min() >= 0.2
    assert shrunk.min() < 0.4 < 0.8 < shrunk.max() <= 1
    assert turned.min() == pytest.approx(0.83, abs=0.03)  # 2 (sqrt(2) - 1): a square and itself, turned by 45 degrees
    assert turned.max() <= 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"updates": 0}, "updates of universal is a count"),
        ({"shrink": 0.0}, "shrink of universal is a share"),
        ({"turn": 181.0}, "turn of universal is an angle"),
        ({"pattern": "!"}, "pattern of universal is no base64"),
    ],
    ids=str,
)
def test_impossible_options_are_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        ATTACKS.make({"name": "universal", **options})


def test_a_pattern_of_another_size_and_no_rows_are_refused():
    with pytest.raises(ValueError, match="pattern of universal has 18 values, and a frame of these images 40; make it"):
        made(Patch(size=3))(trained(), images(), labels(), Frame(width=1), generator=generator(0))
    with pytest.raises(ValueError, match="got no batches"):
        Universal().fit(trained(), [], Patch(), generator=generator(0))


def test_evaluate_makes_the_pattern_from_training_rows_and_says_so(tmp_path):
    attack = Universal(updates=4, **FLAT)
    e = Evaluate(model="toys:trained", data=Stripes(), threat=Frame(width=1), attacks=(attack,), strongest=(), batch_size=20)
    run_evaluation(e, tmp_path)
    record = read_result(tmp_path / "result.json")
    (record_of_attack,) = record.evaluation.attacks
    assert record_of_attack["made_from"] == "80 draws of training rows of stripes"
    assert len(base64.b64decode(record_of_attack["pattern"])) == 40
    assert record.experiment["attacks"][0]["pattern"] == ""
    assert card.of(record).changes == (card.UNIVERSAL,)
    assert "80 draws of training rows of stripes" in card.of(record).attacks[0]
    again = ATTACKS.make(record_of_attack)  # the same pattern, for any network
    assert dataclasses.replace(again, pattern="", made_from="") == attack


class Untested(Stripes):
    """The same rows, of which nobody may see those for tests."""

    name = "untested"

    def test(self, *, batch_size):
        raise AssertionError("test rows were looked at")


def test_a_run_that_resumes_reads_its_pattern(tmp_path):
    e = Evaluate(model="x:y", data=Untested(), threat=Frame(width=1), attacks=(Universal(updates=2),), batch_size=20)
    first = with_patterns(e, trained(), folder=tmp_path)
    held = json.loads((tmp_path / PATTERNS).read_text())
    held[0]["made_from"] = "the file"
    (tmp_path / PATTERNS).write_text(json.dumps(held))
    (found,) = with_patterns(e, trained(), folder=tmp_path).attacks
    assert found == dataclasses.replace(first.attacks[0], made_from="the file")
    assert with_patterns(first, trained()) is first
