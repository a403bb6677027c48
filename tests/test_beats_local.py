"""Local errors: what a region's own loss adds, to whom, and what it must leave alone."""

import pytest
import torch
from beats_toys import batch, equal, network, train, weights
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam

from beats_search.tensors.beats_layers import BeatsConv2d, BeatsLinear
from beats_search.training.accumulation import Beats
from beats_search.training.local_error import annealed, mixed
from beats_search.training.regions import find_regions
from beats_search.training.windows import Gradients


def chain() -> nn.Sequential:
    """Return three linear regions without dropout, always with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3))


def held(beats: Beats) -> list[Gradients]:
    """Return what every region has accumulated."""
    return [list(window.total) for window in beats._windows]


def micro(model: nn.Module, step: int = 0, **method: object) -> tuple[Beats, list[Gradients]]:
    """Take some micro-batches to set the heads up, then one with a window that holds it; return its gradients."""
    beats = Beats(SGD(model.parameters(), lr=0.0), model, window=10, **method)  # type: ignore[arg-type]  # from a dict
    _give_heads_weights(beats, model)
    inputs, labels = batch(step)
    beats.step(model(inputs), labels)
    return beats, held(beats)


def _give_heads_weights(beats: Beats, model: nn.Module) -> None:
    """Make the heads, which begin at zero, and give them weights; their windows begin anew."""
    inputs, labels = batch(99)
    beats.step(model(inputs), labels)
    beats.flush()
    random = torch.Generator().manual_seed(7)
    for head in beats._local.heads.values() if beats._local else ():
        for parameter in head.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=random))


def test_the_last_region_does_not_depend_on_alpha() -> None:
    """The last region takes the network's gradient whatever the weight of the local errors, to the bit."""
    last = [micro(chain(), local_error=alpha)[1][-1] for alpha in (0.0, 0.3, 1.0)]
    for other in last[1:]:
        assert equal([tensor for tensor in other if tensor is not None], [t for t in last[0] if t is not None])


@pytest.mark.parametrize("change", [1.0, 1e3])
def test_alone_the_local_error_hears_nothing_of_later_regions(change: float) -> None:
    """With a local error of 1, other weights in later regions leave earlier gradients unchanged to the bit."""
    before = micro(chain(), local_error=1.0)[1]
    perturbed = chain()
    with torch.no_grad():
        next(perturbed[4].parameters()).add_(change)
    after = micro(perturbed, local_error=1.0)[1]
    for one, other in zip(before[:2], after[:2], strict=True):
        assert equal([tensor for tensor in one if tensor is not None], [t for t in other if t is not None])
    assert not torch.equal(before[2][0], after[2][0])  # type: ignore[arg-type]  # linear layers have gradients


def test_with_the_network_in_it_later_regions_are_heard() -> None:
    """Negative control: at a local error of 0.9 the same change does reach earlier gradients."""
    before = micro(chain(), local_error=0.9)[1]
    perturbed = chain()
    with torch.no_grad():
        next(perturbed[4].parameters()).add_(1.0)
    after = micro(perturbed, local_error=0.9)[1]
    assert not torch.equal(before[0][0], after[0][0])  # type: ignore[arg-type]  # linear layers have gradients


def test_annealed_away_the_heads_do_not_matter() -> None:
    """Once the local error is 0, training is the network's alone, to the bit, whatever the heads hold."""
    with_heads, without = chain(), chain()
    beats, _ = micro(with_heads, local_error=0.5)
    beats.flush()
    beats.local_error = 0.0
    for group in beats._optimizer.param_groups:
        group["lr"] = 0.1
    plain = Beats(SGD(without.parameters(), lr=0.1), without, window=10)
    train(beats, with_heads, range(20))
    train(plain, without, range(20))
    assert equal(weights(with_heads), weights(without))


@pytest.mark.parametrize("region", [0, 1])
def test_one_forward_pass_gives_the_gradient_of_detached_regions(region: int) -> None:
    """The local gradient equals, to the bit, that of a region computed from a detached input."""
    model = chain()
    beats, found = micro(model, local_error=1.0)
    assert beats._local is not None
    inputs, labels = batch(0)
    with torch.no_grad():
        given = model[: 2 * region](inputs)
    logits = beats._local.heads[region](model[2 * region : 2 * region + 2](given.detach()))
    layer = model[2 * region]
    expected = torch.autograd.grad(functional.cross_entropy(logits, labels), list(layer.parameters()))
    assert equal([tensor for tensor in found[region] if tensor is not None], expected)


def test_the_mix_is_as_defined() -> None:
    """The mix is (1 - α)·b + α·e, and with norm the local part is scaled to the length of the other."""
    backward, local = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    plain = mixed([backward.clone()], [local.clone()], 0.25, "none")[0]
    torch.testing.assert_close(plain, 0.75 * backward + 0.25 * local)
    scaled = mixed([backward.clone()], [local.clone()], 0.25, "norm")[0]
    torch.testing.assert_close(scaled, 0.75 * backward + 0.25 * 2.5 * local)
    tiny = mixed([backward.clone()], [1e-6 * local], 0.25, "norm")[0]
    torch.testing.assert_close(tiny, 0.75 * backward + 0.25 * 10 * 1e-6 * local)


def test_a_term_of_weight_zero_is_not_evaluated() -> None:
    """At a local error of 1, an infinite gradient of the network's loss does no harm."""
    found = mixed([torch.tensor([float("inf")])], [torch.tensor([2.0])], 1.0, "none")
    assert found == [torch.tensor([2.0])]


def test_heads_learn_and_take_no_mixed_gradient() -> None:
    """A head's gradient is that of its own loss, unmixed, whatever the weight of the local error."""
    gradients = []
    for alpha in (0.2, 0.9):
        model = chain()
        beats, _ = micro(model, local_error=alpha)
        gradients.append([tensor for tensor in beats._of_heads[0].total if tensor is not None])
    assert gradients[0]
    assert equal(gradients[0], gradients[1])


def test_heads_step_with_their_region_and_its_learning_rate() -> None:
    """The optimizer steps on a head when its region fires, at the learning rate of the others."""
    model = chain()
    beats = Beats(SGD(model.parameters(), lr=0.5), model, window=2, local_error=0.5)
    train(beats, model, range(1))
    head = beats._local.heads[0] if beats._local else nn.Identity()
    assert not any(parameter.any() for parameter in head.parameters())
    beats._optimizer.param_groups[0]["lr"] = 0.25
    train(beats, model, range(1, 2))
    assert all(parameter.any() for parameter in head.parameters())
    (group,) = beats._optimizer.param_groups
    assert any(parameter is next(head.parameters()) for parameter in group["params"])


@pytest.mark.parametrize(
    ("anneal", "done", "expected"),
    [(0.0, 0.9, 0.4), (0.25, 0.5, 0.4), (0.25, 0.75, 0.4), (0.25, 0.875, 0.2), (0.25, 1.0, 0.0), (1.0, 0.5, 0.2)],
)
def test_the_local_error_is_annealed_over_the_last_share(anneal: float, done: float, expected: float) -> None:
    """Alpha stays, then falls linearly to 0 at the end; an anneal of 0 keeps it."""
    assert annealed(0.4, anneal, done) == pytest.approx(expected)


def test_a_closed_method_leaves_no_trace_on_the_model() -> None:
    """No hook remains after closing, and the model holds no head: what is exported is the model alone."""
    model = chain()
    names = [name for name, _ in model.named_parameters()]
    beats = Beats(Adam(model.parameters()), model, local_error=0.5)
    train(beats, model, range(2))
    assert any(module._forward_pre_hooks for module in model.modules())
    beats.close()
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert [name for name, _ in model.named_parameters()] == names


def test_images_have_heads_as_well() -> None:
    """Convolutions, lazy ones too, get heads that read averaged images; the plain loop of the docs runs."""
    torch.manual_seed(0)
    model = nn.Sequential(
        BeatsConv2d(4, (3, 3), activation="relu"),
        nn.MaxPool2d(2),
        BeatsConv2d(6),
        nn.Flatten(),
        BeatsLinear(5),
        nn.Linear(5, 3),
    )
    beats = Beats(SGD(model.parameters(), lr=0.1), model, window=4, trigger=1.6, local_error=0.2)
    random = torch.Generator().manual_seed(0)
    for _ in range(6):
        images, labels = torch.randn(8, 1, 12, 12, generator=random), torch.randint(0, 3, (8,), generator=random)
        beats.step(model(images), labels, loss=functional.cross_entropy)
    assert [region.name for region in beats.regions] == ["0", "2", "4", "5"]
    assert all(region.fires for region in beats.regions)
    heads = beats._local.heads.values() if beats._local else ()
    shapes = [tuple(next(head.parameters()).shape) for head in heads]
    assert shapes == [(3, 4 * 4 * 4), (3, 6 * 6 * 6), (3, 5)]


class Parallel(nn.Module):
    """Two branches beside each other: the second is given the inputs, not what the first has made."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.top = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.top(torch.tanh(self.left(inputs)) + torch.tanh(self.right(inputs)))
        return logits


def test_a_region_without_a_successor_keeps_the_networks_gradient() -> None:
    """A branch whose output goes to no region of its own is trained by the network's loss, even at α = 1."""
    torch.manual_seed(0)
    model = Parallel()
    _, local = micro(model, local_error=1.0)
    torch.manual_seed(0)
    _, plain = micro(Parallel(), local_error=0.0)
    assert torch.equal(local[0][0], plain[0][0])  # type: ignore[arg-type]  # linear layers have gradients
    assert not torch.equal(local[1][0], plain[1][0])  # type: ignore[arg-type]  # the same


class Block(nn.Module):
    """A child with a Beats layer inside, a list that is never called, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(6))
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.inner = nn.Sequential(BeatsLinear(5, in_features=6), nn.Linear(5, 4), nn.BatchNorm1d(4))
        self.norm = nn.LayerNorm(4)
        self.top = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs + self.shift
        for layer in self.layers:
            inputs = layer(inputs)
        logits: Tensor = self.top(self.norm(self.inner(inputs)))
        return logits


def test_regions_partition_the_parameters() -> None:
    """Every trained parameter is in exactly one region; norms join the layer before, loose ones the first region."""
    model = nn.Sequential(nn.Identity(), Block())
    regions = find_regions(model, model.parameters())
    assert [region.name for region in regions] == ["layers.0", "layers.1", "inner.0", "inner.1", "top"]
    found = [id(parameter) for region in regions for parameter in region.parameters]
    assert sorted(found) == sorted(map(id, model.parameters()))
    assert any(parameter is model[1].shift for parameter in regions[0].parameters)
    assert [len(region.parameters) for region in regions] == [3, 2, 2, 6, 2]


def test_frozen_parameters_are_in_no_region() -> None:
    """Only what the optimizer holds is updated; a parameter that is not the model's is refused."""
    model = chain()
    regions = find_regions(model, model[4].parameters())
    assert [len(region.parameters) for region in regions] == [2]
    with pytest.raises(ValueError, match="holds 1 parameters that are not the model's"):
        find_regions(model, [*model.parameters(), nn.Parameter(torch.zeros(1))])


def test_a_network_of_one_layer_is_one_region() -> None:
    """A model without children is a region of its own, and has no local error."""
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    beats = Beats(SGD(model.parameters(), lr=0.1), model, local_error=0.5)
    train(beats, model, range(3))
    assert [region.name for region in beats.regions] == ["linear"]


def test_training_with_local_errors_learns() -> None:
    """With local errors alone, all regions but the last never see the network's loss, and the loss falls."""
    model = network()
    beats = Beats(Adam(model.parameters(), lr=0.02), model, local_error=1.0)
    losses = []
    for step in range(120):
        inputs, labels = batch(step % 6)
        losses.append(float(beats.step(model(inputs), labels)))
    assert sum(losses[-12:]) < 0.5 * sum(losses[:12])
