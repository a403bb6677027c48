"""Channel pruning: the result is an ordinary, narrower network."""

import copy
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from beats_search import plugins
from beats_search.compression._importance import Criterion
from beats_search.compression._widths import best_channels, cubic_ratios, dealt, kept_channels, rounded_up
from beats_search.compression.channel_pruning import ChannelPruning
from beats_search.records.errors import TrialError
from beats_search.records.part import Part
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.seams import Bench, Distillation


def _widths(model: nn.Module) -> list[int]:
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return [layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features for layer in layers]


def _model(bench: Bench, family: str = "resnet", width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    part = Part(name=family, settings=(("width", width),))
    return with_preprocess(bench.data.preprocess, plugins.make("models", part).build((1, 8, 8), 10)).eval()


def _equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


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
    kept = kept_channels(width, ratio, round_to)
    assert 1 <= kept <= width
    assert kept == width or kept % round_to == 0
    assert kept >= min(width, width * (1 - ratio) - 1e-6)


@pytest.mark.parametrize("criterion", get_args(Criterion))
def test_pruning_changes_no_argument(criterion: Criterion, bench: Bench) -> None:
    """The dense model keeps its weights, has no gradients and stays in its mode; torch's random state too."""
    model = _model(bench).train()
    before, random = copy.deepcopy(model), torch.get_rng_state()
    ChannelPruning(ratio=0.5, round_to=8, criterion=criterion).apply(model, bench)
    assert _equal(model, before)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("ranking", ["per_layer", "global"])
@pytest.mark.parametrize("criterion", get_args(Criterion))
def test_equal_seeds_remove_equal_channels(criterion: Criterion, ranking: str, bench: Bench) -> None:
    """Two prunings by one seed give one network, to the bit and without gradients; `random` hangs on the seed."""
    settings = {"criterion": criterion, "ranking": ranking}
    technique = ChannelPruning(ratio=0.5, round_to=1, **settings)  # type: ignore[arg-type]  # words from above
    one, same, other = (technique.apply(_model(bench), replace(bench, seed=seed)) for seed in (1, 1, 2))
    assert _equal(one, same)
    assert sum(_widths(one)) < sum(_widths(_model(bench)))
    assert all(parameter.grad is None for parameter in one.parameters())
    if criterion == "random":
        assert not _equal(one, other)


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


def _dense(*widths: int, norm: bool = False) -> nn.Sequential:
    """Return linear layers from 64 inputs over some widths to 10 logits, all weights 1, so that tests may set some."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise((64, *widths, 10)):
        linear = nn.Linear(inputs, outputs)
        nn.init.ones_(linear.weight)
        layers += [linear, nn.BatchNorm1d(outputs)] if norm else [linear]
    return nn.Sequential(*layers).eval()


def _weight(model: nn.Sequential, index: int) -> Tensor:
    """Return the weight of a layer, to be set in place."""
    return model[index].get_parameter("weight").detach()


def _rows(model: nn.Module) -> Tensor:
    return next(iter(model.parameters())).detach()


def test_taylor_removes_what_the_loss_does_not_hear_of(bench: Bench) -> None:
    """A channel that nothing reads goes first, however large the weights are that make it."""
    model = _dense(8)
    _weight(model, 1).normal_(generator=torch.Generator().manual_seed(0))
    _weight(model, 2).normal_(generator=torch.Generator().manual_seed(1))
    _weight(model, 1)[5] *= 10
    _weight(model, 2)[:, 5] = 0
    pruned = ChannelPruning(ratio=0.125, round_to=1, criterion="taylor").apply(model, bench)
    assert torch.equal(_rows(pruned), torch.cat([_rows(model)[:5], _rows(model)[6:]]))


def test_the_smallest_scale_of_a_norm_goes_first(bench: Bench) -> None:
    """By batch_norm_scale the channel with the smallest scale is removed, however large its weights are."""
    model = _dense(8, norm=True)
    _weight(model, 1)[5] = 10.0
    _weight(model, 2)[5] = 0.1
    pruned = ChannelPruning(ratio=0.125, round_to=1, criterion="batch_norm_scale").apply(model, bench)
    assert torch.equal(_rows(pruned), torch.ones(7, 64))


def test_fpgm_removes_the_channel_most_like_the_others(bench: Bench) -> None:
    """By fpgm the channel in the middle goes first, where magnitude removes the smallest."""
    model = _dense(5)
    _weight(model, 1)[:] = torch.arange(1.0, 6.0)[:, None]
    by_criterion = {
        criterion: _rows(ChannelPruning(ratio=0.2, round_to=1, criterion=criterion).apply(model, bench))[:, 0].tolist()
        for criterion in ("fpgm", "magnitude")
    }
    assert by_criterion["fpgm"] == [1, 2, 4, 5]
    assert by_criterion["magnitude"] == [2, 3, 4, 5]


def test_scales_of_norms_need_norms(bench: Bench) -> None:
    """A network without batch norms cannot be ranked by their scales, and is told so."""
    with pytest.raises(TrialError, match="batch_norm_scale needs batch norms"):
        ChannelPruning(ratio=0.5, round_to=1, criterion="batch_norm_scale").apply(_model(bench, "mlp"), bench)


def test_global_ranking_takes_from_layers_that_have_weak_channels(bench: Bench) -> None:
    """Ranked together, the layer with weak channels gives all of them; ranked per layer, each gives its share."""
    model = _dense(32, 32)
    _weight(model, 1)[:16] *= 0.1
    technique = ChannelPruning(ratio=0.25, round_to=1)
    assert _widths(technique.apply(model, bench)) == [24, 24, 10]
    assert _widths(replace(technique, ranking="global").apply(model, bench)) == [16, 32, 10]


def test_global_ranking_rounds_up_and_leaves_a_least_width(bench: Bench) -> None:
    """However weak a layer is, it keeps `round_to` channels, and a multiple of that."""
    model = _dense(32, 32, 32)
    _weight(model, 1)[1:] *= 1e-3
    _weight(model, 2)[13:] *= 1e-3
    widths = _widths(ChannelPruning(ratio=0.5, round_to=8, ranking="global").apply(model, bench))
    assert widths[:2] == [8, 16]
    assert all(width % 8 == 0 for width in widths[:-1])


def test_layers_of_equal_channels_get_narrower_by_equal_shares(bench: Bench) -> None:
    """Where all channels are worth the same, as untrained scales are, global ranking is ranking per layer."""
    technique = ChannelPruning(ratio=0.5, round_to=1, criterion="batch_norm_scale")
    model = _model(bench)
    together = replace(technique, ranking="global").apply(model, bench)
    assert _widths(together) == _widths(technique.apply(model, bench))


@given(
    scores=st.lists(st.lists(st.floats(0, 10), min_size=1, max_size=20), min_size=1, max_size=5),
    share=st.floats(0, 1),
    multiple=st.sampled_from([1, 4, 16]),
)
def test_the_best_channels_are_as_many_as_asked(scores: list[list[float]], share: float, multiple: int) -> None:
    """As many channels are among the best as asked, in all layers together; each layer keeps its own, rounded up."""
    layers = {str(index): torch.tensor(each) for index, each in enumerate(scores)}
    count = int(share * sum(len(each) for each in scores))
    best = best_channels(layers, count)
    assert sum(best.values()) == count
    for name, each in layers.items():
        assert 0 <= best[name] <= rounded_up(best[name], len(each), multiple) <= len(each)


@given(ratio=st.floats(0.01, 0.99), steps=st.integers(1, 9))
def test_steps_remove_most_early_and_end_at_the_ratio(ratio: float, steps: int) -> None:
    """Each step adds less to the ratio than the one before, and the last one ends at the ratio itself."""
    ratios = cubic_ratios(ratio, steps)
    added = [after - before for before, after in pairwise((0.0, *ratios))]
    assert ratios[-1] == ratio
    assert all(earlier > later > 0 for earlier, later in pairwise(added))


@given(epochs=st.integers(0, 50), steps=st.integers(1, 9))
def test_epochs_are_dealt_equally_and_the_last_step_gets_the_rest(epochs: int, steps: int) -> None:
    """All epochs are dealt; all steps get the same number, the last one what is left besides."""
    *first, last = dealt(epochs, steps)
    assert sum(first) + last == epochs
    assert set(first) <= {epochs // steps}


@pytest.mark.parametrize("ratio", [0.0, 0.2])
def test_nothing_to_remove_returns_the_model_untrained(ratio: float, bench: Bench) -> None:
    """Where rounding leaves every channel, nothing is removed and nothing is trained."""

    def refuse(_model: nn.Module, *_: object, **__: object) -> nn.Module:
        raise AssertionError

    model = _model(bench)
    technique = ChannelPruning(ratio=ratio, round_to=16, recovery_epochs=2)
    assert technique.apply(model, replace(bench, fine_tune=refuse)) is model


class _Notes:
    """Fine-tuning that trains nothing and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.teachers: list[Distillation | None] = []

    def __call__(self, model: nn.Module, epochs: int, *, distillation: Distillation | None = None) -> nn.Module:
        self.asked.append((_widths(model)[0], epochs))
        self.teachers.append(distillation)
        return model


def test_recovery_trains_the_narrow_model(bench: Bench) -> None:
    """What is trained again has the new widths, for as many epochs as asked, and without a teacher."""
    notes = _Notes()
    ChannelPruning(ratio=0.5, round_to=8, recovery_epochs=3).apply(_model(bench), replace(bench, fine_tune=notes))
    assert (notes.asked, notes.teachers) == ([(8, 3)], [None])


@pytest.mark.parametrize("ranking", ["per_layer", "global"])
def test_in_steps_the_model_is_pruned_and_recovered_by_turns(ranking: str, bench: Bench) -> None:
    """With 3 steps to 0.5 the widths are those of 19/54, 26/54 and 27/54 less, each recovered for its epochs."""
    notes, model = _Notes(), _dense(54)
    technique = ChannelPruning(ratio=0.5, round_to=1, recovery_epochs=8, steps=3, ranking=ranking)  # type: ignore[arg-type]  # a word from above
    pruned = technique.apply(model, replace(bench, fine_tune=notes))
    assert notes.asked == [(35, 2), (28, 2), (27, 4)]
    assert _widths(pruned) == [27, 10]


def test_epochs_of_a_step_that_removes_nothing_are_not_lost(bench: Bench) -> None:
    """Where rounding undoes the first step, the second one recovers for both; a later one recovers all the same."""
    notes, technique = _Notes(), ChannelPruning(ratio=0.25, round_to=24, recovery_epochs=7, steps=3)
    technique.apply(_dense(100), replace(bench, fine_tune=notes))
    assert notes.asked == [(96, 2), (96, 2), (96, 3)]
    notes, technique = _Notes(), ChannelPruning(ratio=0.25, round_to=16, recovery_epochs=7, steps=3)
    technique.apply(_dense(64), replace(bench, fine_tune=notes))
    assert notes.asked == [(48, 7)]


def test_the_teacher_is_the_dense_model_in_every_step(bench: Bench) -> None:
    """With distillation each recovery hears of the model as it was before pruning."""
    notes, model = _Notes(), _model(bench)
    technique = ChannelPruning(ratio=0.5, round_to=1, recovery_epochs=2, steps=2, distillation=0.7, temperature=2.0)
    technique.apply(model, replace(bench, fine_tune=notes))
    assert notes.teachers == [Distillation(teacher=model, weight=0.7, temperature=2.0)] * 2


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
        ({"ratio": 0.5, "steps": 0}, "steps needs to be at least 1, got 0"),
        ({"ratio": 0.5, "steps": 3, "recovery_epochs": 2}, "for each step, got steps=3, recovery_epochs=2"),
        ({"ratio": 0.5, "distillation": 1.1, "recovery_epochs": 1}, "between 0 and 1, got 1.1"),
        ({"ratio": 0.5, "distillation": 0.5}, "distillation needs at least 1 recovery epoch"),
        ({"ratio": 0.5, "temperature": 0.0}, "temperature needs to be a number above 0"),
    ],
)
def test_nonsense_is_refused(settings: dict[str, float], rule: str) -> None:
    """Settings check themselves."""
    with pytest.raises(ValueError, match=rule):
        ChannelPruning(**settings)  # type: ignore[arg-type]  # wrong on purpose
