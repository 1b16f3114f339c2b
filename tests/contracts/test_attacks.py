"""What every attack promises, in every threat model."""

import copy
import dataclasses
import re
from itertools import product

import pytest
import torch

import normwise as nw
from normwise.attacks import APGD, ATTACKS, FAB, PGD
from normwise.attacks.oracle import Oracle
from normwise.losses import margin
from normwise.norms import NORMS, BNwoT
from normwise.seeding import generator
from normwise.threats import L1, L2, THREATS, Linf
from normwise.types import Attack, Search
from normwise.utils.model_state import digest
from toys import Linear, Small, across, balanced, fitting, images, labels, quick, scene, seeing, some, takes, trained


@pytest.fixture(params=ATTACKS, ids=str)
def attack(request):
    return quick(ATTACKS[request.param])


@pytest.fixture(params=THREATS, ids=str)
def threat(request):
    return fitting(THREATS[request.param])


def defined(attack, threat):
    """Whether the attack says that it is defined in this geometry."""
    try:
        attack.check(threat.around(images(1, scene(threat)), generator=generator(0)))
    except ValueError:
        return False
    return True


PAIRS = {pair: defined(quick(ATTACKS[pair[0]]), fitting(THREATS[pair[1]])) for pair in product(ATTACKS, THREATS)}
PLACES = [  # by the shapes of images for which the threat model is defined, too
    (*pair, shape)
    for pair, good in PAIRS.items()
    for shape in [(5,), (2, 6, 6), (2, 3, 4, 4)]
    if good and takes(fitting(THREATS[pair[1]]), shape)
]
GOOD = [pair for pair, good in PAIRS.items() if good]
DEFINED = pytest.mark.parametrize(("attack", "threat"), GOOD, indirect=True)


@pytest.fixture
def home(attack):
    """A threat model in which the attack is defined."""
    return next(fitting(one) for one in (Linf, *THREATS.values()) if PAIRS[attack.name, one.name])


def brief(attack):
    """The same in few steps, where it need not get far."""
    few = {name: min(getattr(attack, name), 4) for name in ("steps", "queries") if hasattr(attack, name)}
    return dataclasses.replace(attack, **few)


@pytest.mark.parametrize(("attack", "threat"), [pair for pair, good in PAIRS.items() if not good], indirect=True)
def test_elsewhere_it_is_refused_in_one_line(attack, threat):
    with pytest.raises(
        ValueError, match=rf"^\w+ needs [\w, ]+; got {threat.name}; for {threat.name} take [\w, ]+$"
    ) as refusal:
        attack(seeing(trained(), threat), images(12, scene(threat)), labels(), threat, generator=generator(0))
    others = re.split(", | or ", str(refusal.value).rpartition(" take ")[2])
    assert all(PAIRS[other, threat.name] for other in others)
    assert {"patchattack", "sparse_rs"} <= {*others} or threat.name not in ("patch", "frame")


@pytest.mark.parametrize("independent", [True, False], ids=["independent", "whole batch"])
@pytest.mark.parametrize(
    ("attack", "threat", "shape"),
    PLACES,
    indirect=["attack", "threat"],
    ids=lambda one: str(one if isinstance(one, str) else len(one)),
)
def test_images_are_allowed_and_as_many_as_asked(attack, threat, shape, independent):
    assert isinstance(attack, Attack)
    x, y = images(8, shape), labels(8, 2)
    proposal = attack(Linear(shape), x, y, threat, generator=generator(0), search=Search(independent=independent))
    assert proposal.x_adv.shape == x.shape
    assert proposal.x_adv.dtype == x.dtype
    assert not proposal.x_adv.requires_grad
    assert threat.around(x, generator=generator(0)).contains(proposal.x_adv).all()
    assert proposal.first_hit.shape == (8,)
    assert proposal.forwards > 0
    assert (proposal.backwards == 0) == getattr(attack, "black_box", False)


FEW = {attack: (attack, threat) for attack, threat in reversed(GOOD)}.values()  # of each attack one


@pytest.mark.parametrize(("attack", "threat"), some(GOOD, *FEW, *(one for one in GOOD if one[0] == "pgd")), indirect=True)
def test_images_do_not_depend_on_torchs_default_dtype(attack, threat):
    model, x = seeing(trained(), threat), images(12, scene(threat))

    def found():
        return attack(model, x, labels(), threat, generator=generator(0)).x_adv

    before = found()
    torch.set_default_dtype(torch.float64)
    try:
        after = found()
    finally:
        torch.set_default_dtype(torch.float32)
    assert after.dtype == before.dtype
    assert torch.equal(after, before)


# attacks know no norm: with every norm one attack, and every attack with one that reads running statistics and one the batch
KEPT = some(across(ATTACKS, NORMS, "pgd", "bn", "bnwot"), *across(ATTACKS, NORMS, "pgd", "bn"))


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(("attack", "norm"), KEPT, indirect=["attack"])
def test_the_model_is_left_as_it_was(attack, home, norm, mode):
    model = trained(NORMS[norm]()).train(mode == "train")
    model.conv2.eval()  # a frozen layer stays frozen
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    before, modes = digest(model), [m.training for m in model.modules()]
    buffers = {name: id(buffer) for name, buffer in model.named_buffers()}
    flags = [p.requires_grad for p in model.parameters()]
    random_state = torch.random.get_rng_state()
    x, y = images(), labels()
    kept = x.clone()
    attack(model, x, y, home, generator=generator(0))
    assert digest(model) == before
    assert [m.training for m in model.modules()] == modes
    assert {name: id(buffer) for name, buffer in model.named_buffers()} == buffers
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all((p.grad == 7).all() for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert torch.equal(x, kept)
    assert x.grad is None


def test_images_that_cannot_hold_the_radius_are_refused(attack, home):
    with pytest.raises(ValueError, match=r"torch.bfloat16 cannot hold eps exactly; give x.float\(\)"):
        attack(trained(NORMS["bn"]()), images().bfloat16(), labels(), home, generator=generator(0))


def test_pixels_outside_their_range_are_refused(attack, home):
    with pytest.raises(ValueError, match=r"cannot attack: pixels from -1 to .*expected \[0, 1\]"):
        attack(trained(NORMS["bn"]()), 2 * images() - 1, labels(), home, generator=generator(0))


def test_the_model_is_left_as_it_was_when_the_attack_fails(attack, home):
    class Breaks(Small):
        def forward(self, x):
            super().forward(x)
            raise RuntimeError("broken")

    model = Breaks().train()
    before, buffers = digest(model), {name: id(b) for name, b in model.named_buffers()}
    with pytest.raises(RuntimeError, match="broken"):
        attack(model, images(), labels(), home, generator=generator(0))
    assert digest(model) == before
    assert {name: id(b) for name, b in model.named_buffers()} == buffers


@DEFINED
def test_at_radius_zero_it_returns_the_clean_images(attack, threat):
    """To the bit, so that robust accuracy is exactly clean accuracy."""
    model, x, y = seeing(trained(), threat), images(4, scene(threat)), labels(4)
    for independent in (True, False):
        none = dataclasses.replace(threat, eps=0.0)
        x_adv = brief(attack)(model, x, y, none, generator=generator(0), search=Search(independent=independent)).x_adv
        assert torch.equal(x_adv, x)


@DEFINED
def test_equal_generators_give_equal_images_even_with_noise_in_the_model(attack, threat):
    model = seeing(trained().train(), threat)  # dropout is on
    x, y = images(6, scene(threat)), labels(6)
    one, two, other = (brief(attack)(model, x, y, threat, generator=generator(seed)).x_adv for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def _towards(model, y, x):
    """Per row the direction in which the margin rises, and how far each pixel may go in it."""
    direction = torch.where(y.bool().view(-1, *[1] * (x.ndim - 1)), -model.w, model.w).detach().double()
    return direction, torch.where(direction > 0, 1 - x, x).double()


def _fill(direction, room, budget, price):
    """Pixel after pixel to its side of the box, the steepest first, until each row's budget is spent at this price."""
    moves = torch.zeros_like(room).flatten(1)
    for row, (steep, most, left) in enumerate(zip(direction.flatten(1).abs(), room.flatten(1), budget, strict=True)):
        for pixel in steep.argsort(descending=True).tolist():
            unit = float(steep[pixel]) if price == "gain" else 1.0
            moves[row, pixel] = min(float(most[pixel]), float(left) / unit)
            left = left - moves[row, pixel] * unit
    return direction.sign() * moves.view_as(room)


def _moves(direction, room, threat, multiplier):
    """The moves that a multiplier stands for, in linf and l2."""
    wish = torch.ones_like(direction) if isinstance(threat, Linf) else direction.abs()
    return direction.sign() * torch.minimum(multiplier.view(-1, *[1] * (room.ndim - 1)) * wish, room)


def _bisect(enough, rows):
    low, high = torch.zeros(rows, dtype=torch.float64), torch.full((rows,), 1e4, dtype=torch.float64)
    for _ in range(200):
        middle = (low + high) / 2
        beyond = enough(middle)
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return high


def _length(d, threat):
    return torch.linalg.vector_norm(d.flatten(1), ord={"linf": float("inf"), "l2": 2, "l1": 1}[threat.name], dim=1)


def _optimum(model, x, y, threat):
    """The largest margin that a linear model's image can reach in the ball and box, by Lagrange multiplier."""
    direction, room = _towards(model, y, x)
    if threat.name == "l1":
        best = _fill(direction, room, torch.full((len(x),), threat.eps, dtype=torch.float64), "length")
    else:
        t = _bisect(lambda t: _length(_moves(direction, room, threat, t), threat) >= threat.eps, len(x))
        best = _moves(direction, room, threat, t)
    return margin(model((x + best).float()), y), margin(model(x), y)


def _nearest(model, x, y, threat):
    """The distance to a linear model's boundary inside the box, by Lagrange multiplier."""
    direction, room = _towards(model, y, x)
    gap = -margin(model(x), y).detach().double()
    if threat.name == "l1":
        return _length(_fill(direction, room, gap, "gain"), threat)
    t = _bisect(lambda t: (direction * _moves(direction, room, threat, t)).flatten(1).sum(1) >= gap, len(x))
    return _length(_moves(direction, room, threat, t), threat)


BALLS = pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.5), L1(eps=1.5)], ids=str)
SHAPES = [(20,), (4, 5), (2, 4, 4), (2, 3, 3, 3)]
SIZES = pytest.mark.parametrize(
    ("rows", "shape"), [(3, shape) for shape in SHAPES] + [(1, SHAPES[2]), (8, SHAPES[2])], ids=str
)


@pytest.mark.parametrize("attack", [PGD(steps=40, relative_step=0.1, keep="last"), APGD(steps=40)], ids=str)
@BALLS
@SIZES
def test_95_percent_of_the_optimum_of_a_linear_model_are_reached(attack, threat, rows, shape):
    model, x = Linear(shape), images(rows, shape)
    y = model(x).argmax(1)
    best, clean = _optimum(model, x, y, threat)
    x_adv = attack(model, x, y, threat, generator=generator(0)).x_adv
    assert ((margin(model(x_adv), y) - clean) / (best - clean) >= 0.95).all()


@BALLS
@SIZES
def test_the_least_radius_at_which_a_linear_model_falls_is_found_within_5_percent(threat, rows, shape):
    model, x = Linear(shape), images(rows, shape)
    y = model(x).argmax(1)
    for row, least in enumerate(_nearest(model, x, y, threat).tolist()):
        for factor, falls in ((1.05, True), (0.99, False)):
            around = type(threat)(eps=factor * least)
            x_adv = FAB(steps=10)(model, x, y, around, generator=generator(0), search=Search(independent=True)).x_adv
            assert bool(margin(model(x_adv), y)[row] > 0) == falls


def test_keeping_the_best_is_never_weaker_than_keeping_the_last():
    model, x = trained(), images(40)
    with torch.no_grad():
        model.linear.bias.sub_(model(x).mean(0))  # else one class wins everywhere
    y, threat = model(x).argmax(1), Linf(eps=0.02)
    last = PGD(steps=10, keep="last")(model, x, y, threat, generator=generator(0))
    best = PGD(steps=10)(model, x, y, threat, generator=generator(0), search=Search(independent=True))
    more = PGD(steps=10, restarts=5)(model, x, y, threat, generator=generator(0), search=Search(independent=True))
    fallen = [int((model(p.x_adv).argmax(1) != y).sum()) for p in (last, best, more)]
    assert fallen[0] <= fallen[1] <= fallen[2]
    assert 0 < fallen[2] < 40  # else this test could not fail


def test_rows_that_fell_are_not_paid_for_again():
    model, x = trained(), images(40)
    y = model(x).argmax(1)
    y[:20] = (y[:20] + 1) % 3  # half are wrong before the first step
    whole = PGD(steps=10, random_start=False)(model, x, y, Linf(eps=0.001), generator=generator(0))
    rows = PGD(steps=10, random_start=False)(
        model, x, y, Linf(eps=0.001), generator=generator(0), search=Search(independent=True)
    )
    assert whole.backwards == 400
    assert rows.backwards <= 40 + 9 * 20
    assert (rows.first_hit[:20] == 0).all()


def test_the_attack_goes_through_the_batch_statistics():
    """White box means through everything: the gradient of one row's loss reaches its neighbours' pixels."""
    model, x, y = trained(BNwoT()), images(4), labels(4)
    from normwise.attacks.oracle import Oracle
    from normwise.losses import cross_entropy

    one = torch.tensor([True, False, False, False])
    grad = Oracle(model).gradient(x, y, cross_entropy, one).grad
    assert (grad[1:].flatten(1).abs().amax(1) > 0).all()


def test_a_cut_gradient_is_named():
    class Cut(Small):
        def forward(self, x):
            return super().forward(x.detach())

    model = Cut().eval()
    for p in model.parameters():
        p.requires_grad_(False)
    with pytest.raises(ValueError, match="gradient is cut"):
        PGD()(model, images(), labels(), Linf(), generator=generator(0))
    with pytest.raises(ValueError, match="gradient is cut"):
        PGD()(Cut().eval(), images(), labels(), Linf(), generator=generator(0))


def test_an_attack_works_under_inference_mode_and_with_frozen_weights():
    model = copy.deepcopy(trained()).requires_grad_(False)
    with torch.inference_mode():
        x, y = images(), labels()
        proposal = PGD(steps=3)(model, x, y, Linf(), generator=generator(0))
        found = nw.evaluate(trained(), (x, y), Linf(), [PGD(steps=3)])
    assert not torch.equal(proposal.x_adv, x)
    again = nw.evaluate(trained(), (x.clone(), y), Linf(), [PGD(steps=3)])
    assert found.evaluation.standing == again.evaluation.standing


@pytest.mark.parametrize(
    "options",
    [{"steps": -1}, {"steps": 2.5}, {"restarts": 0}, {"relative_step": 0.0}, {"loss": "cee"}, {"keep": "first"}],
    ids=str,
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=r"pgd|loss"):
        ATTACKS.make({"name": "pgd", **options})


@pytest.mark.parametrize("attack", [PGD, APGD])
def test_one_draw_of_neighbours_is_no_mean_and_refused(attack):
    with pytest.raises(ValueError, match=f"over='peers' of {attack.name} .* got draws=1; give draws >= 2"):
        attack(over="peers")


def test_where_a_fall_decides_nothing_rows_search_on(attack, home):
    """With `stops=False` a row that falls early costs as much as one that stands, and ends no nearer to the boundary."""
    model, x = Linear((2, 6, 6)), 0.4 + 0.2 * images(6)
    y, slope = model(x).argmax(1), model.w.detach()
    dual = {"linf": slope.abs().sum(), "l2": slope.norm()}.get(home.name, slope.abs().max())
    for row, least in enumerate((margin(model(x), y).abs() / dual).tolist()):
        one, label, threat = x[row : row + 1], y[row : row + 1], dataclasses.replace(home, eps=min(1.0, 3 * least))
        early, late = (
            attack(model, one, label, threat, generator=generator(0), search=Search(independent=True, stops=stops))
            for stops in (True, False)
        )
        assert margin(model(late.x_adv), label) >= margin(model(early.x_adv), label) - 1e-5
        if early.first_hit >= 0:  # it looked, and left
            assert late.forwards > early.forwards


@pytest.mark.parametrize("independent", [True, False], ids=["independent", "whole batch"])
def test_towards_a_class_an_attack_reaches_that_class_or_says_that_it_cannot(attack, home, independent):
    model, x = balanced(), images(12)
    aim, wide = model(x).argsort(1)[:, 1], dataclasses.replace(home, eps=0.2)
    search = Search(independent=independent, goal="targeted")
    if "targeted" not in attack.goals:
        with pytest.raises(ValueError, match="for the goal targeted take another"):
            attack(model, x, aim, wide, generator=generator(0), search=search)
        return
    if any("targeted" not in part.goals for part in attack.parts):
        with pytest.raises(ValueError, match="fab looks for any misclassified image"):
            attack(model, x, aim, wide, generator=generator(0), search=search)
        return
    found = attack(model, x, aim, wide, generator=generator(0), search=search)
    after = model(found.x_adv).argmax(1) == aim
    assert wide.around(x, generator=generator(0)).contains(found.x_adv).all()
    assert after.any()
    assert after[found.first_hit >= 0].all() or not independent
    third = 3 - aim - model(x).argmax(1)  # neither the answer nor the class to reach: misclassified, and no success
    assert not ((found.first_hit >= 0) & (model(found.x_adv).argmax(1) == third)).any() or not independent


def test_towards_a_class_the_gradient_is_that_of_the_loss_to_lower():
    model, x, aim = trained(), images(4), labels(4)
    where = torch.ones(4, dtype=torch.bool)
    for name in ("ce", "margin", "dlr"):
        away, towards = Oracle(model), Oracle(model, Search(goal="targeted"))
        one = away.gradient(x, aim, away.loss(name), where).grad
        assert torch.equal(towards.gradient(x, aim, towards.loss(name), where).grad, -one)
    logits = model(x)
    assert torch.equal(towards.margin(logits, aim), -margin(logits, aim))
    assert torch.equal(towards.reached(logits, aim), logits.argmax(1) == aim)
