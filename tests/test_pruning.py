"""Channel pruning: the result is an ordinary, narrower network."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from beats_search import plugins
from beats_search.compression.channel_pruning import ChannelPruning
from beats_search.records.errors import TrialError
from beats_search.records.part import Part
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.seams import Bench


def _widths(model: nn.Module) -> list[int]:
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return [layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features for layer in layers]


def _model(bench: Bench, family: str = "resnet", width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    part = Part(name=family, settings=(("width", width),))
    return with_preprocess(bench.data.preprocess, plugins.make("models", part).build((1, 8, 8), 10)).eval()


def _run(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(torch.rand(3, 1, 8, 8))
    return logits


@pytest.mark.parametrize("family", ["mlp", "cnn", "resnet"])
def test_pruned_by_half_is_half_as_wide(family: str, bench: Bench) -> None:
    """With ratio 0.5 every layer but the last has half its channels, and the network still runs."""
    model = _model(bench, family)
    pruned = ChannelPruning(ratio=0.5, round_to=8).apply(model, bench)
    before, after = _widths(model), _widths(pruned)
    assert after[:-1] == [max(8, width // 2) for width in before[:-1]]
    assert after[-1] == 10
    assert _run(pruned).shape == (3, 10)


@given(ratio=st.floats(0, 0.99), width=st.integers(1, 300), round_to=st.sampled_from([1, 8, 16]))
def test_kept_width_is_a_multiple_and_never_too_small(ratio: float, width: int, round_to: int) -> None:
    """What is kept is a multiple of `round_to` or all there was, at least the asked share, and never nothing."""
    kept = ChannelPruning(ratio=ratio, round_to=round_to)._rounded(width)
    assert 1 <= kept <= width
    assert kept == width or kept % round_to == 0
    assert kept >= min(width, width * (1 - ratio) - 1e-6)


def test_pruning_changes_no_argument(bench: Bench) -> None:
    """The dense model keeps its channels and its weights."""
    model = _model(bench)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ChannelPruning(ratio=0.5, round_to=8).apply(model, bench)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_weakest_channel_goes_first(bench: Bench) -> None:
    """By magnitude, the channel whose weights are smallest is removed."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)).eval()
    first, last = model[1], model[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        first.weight[5] *= 1e-3
        last.weight[:, 5] *= 1e-3
    pruned = ChannelPruning(ratio=0.125, round_to=1).apply(model, bench)
    kept = torch.cat([first.weight[:5], first.weight[6:]])
    assert torch.equal(next(iter(pruned.parameters())), kept)


@pytest.mark.parametrize("ratio", [0.0, 0.2])
def test_nothing_to_remove_returns_the_model_untrained(ratio: float, bench: Bench) -> None:
    """Where rounding leaves every channel, nothing is removed and nothing is trained."""

    def refuse(_model: nn.Module, _epochs: int) -> nn.Module:
        raise AssertionError

    model = _model(bench)
    technique = ChannelPruning(ratio=ratio, round_to=16, recovery_epochs=2)
    assert technique.apply(model, replace(bench, fine_tune=refuse)) is model


def test_recovery_trains_the_narrow_model(bench: Bench) -> None:
    """What is trained again has the new widths, for as many epochs as asked."""
    asked: list[tuple[list[int], int]] = []

    def note(model: nn.Module, epochs: int) -> nn.Module:
        asked.append((_widths(model)[:1], epochs))
        return model

    ChannelPruning(ratio=0.5, round_to=8, recovery_epochs=3).apply(_model(bench), replace(bench, fine_tune=note))
    assert asked == [([8], 3)]


def test_only_named_layers_get_narrower(bench: Bench) -> None:
    """With `layers` the others keep their channels."""
    model = nn.Sequential()
    model.add_module("flat", nn.Flatten())
    model.add_module("fc1", nn.Linear(64, 32))
    model.add_module("fc2", nn.Linear(32, 32))
    model.add_module("out", nn.Linear(32, 10))
    pruned = ChannelPruning(ratio=0.5, layers=("fc2",), round_to=1).apply(with_preprocess(nn.Identity(), model), bench)
    assert _widths(pruned) == [32, 16, 10]


def test_a_pattern_that_matches_nothing_lists_the_layers(bench: Bench) -> None:
    """A pattern without a layer is an error that says which layers there are."""
    listed = r"layers=\['fc9'\] matches no layer that can be pruned; there are: stem\.0, layer1\.0\.body\.0"
    with pytest.raises(ValueError, match=listed):
        ChannelPruning(ratio=0.5, layers=("fc9",)).apply(_model(bench), bench)


def test_a_ratio_of_zero_asks_for_no_layer(bench: Bench) -> None:
    """Where nothing is to be removed, a pattern that matches nothing is no mistake."""
    model = _model(bench)
    assert ChannelPruning(ratio=0.0, layers=("fc9",)).apply(model, bench) is model


def test_a_model_with_nothing_to_prune_stays_as_it_is(bench: Bench) -> None:
    """A single layer is the last one, and the last one is never pruned."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert ChannelPruning(ratio=0.5).apply(model, bench) is model


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.first(values.flatten(1))
        logits: Tensor = self.out(hidden + self.second(hidden))
        return logits


def test_layers_that_share_their_width_cannot_be_pruned_alone(bench: Bench) -> None:
    """A layer coupled with one outside of the pattern is reported instead of silently kept."""
    with pytest.raises(TrialError, match="share their width"):
        ChannelPruning(ratio=0.5, layers=("second",), round_to=1).apply(_Residual().eval(), bench)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"ratio": 1.0}, "below 1"),
        ({"ratio": -0.1}, "at least 0"),
        ({"ratio": 0.5, "round_to": 0}, "at least 1"),
        ({"ratio": 0.5, "recovery_epochs": -1}, "at least 0"),
        ({"ratio": 0.5, "layers": ()}, "at least one"),
    ],
)
def test_nonsense_is_refused(settings: dict[str, float], rule: str) -> None:
    """Settings check themselves."""
    with pytest.raises(ValueError, match=rule):
        ChannelPruning(**settings)  # type: ignore[arg-type]  # wrong on purpose
