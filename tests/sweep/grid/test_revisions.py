"""A mended definition gives its own trials other ids, and no others; a recipe says what single architectures take."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from models.architectures import ARCHITECTURES
from models.interventions import INTERVENTIONS
from sweep.grid.document import grid_names
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.grid.mistakes import explain
from sweep.grid.schema import Grid
from sweep.spec import Plan, Resources, TrialSpec
from sweep.store.sweep_dir import SweepDir
from sweep.training.trial import run_trial

# As they were before there were revisions: names of folders that people keep.
IDS = {
    "demo": [
        "simplified_mini-baseline-s0-b6ddbfd3968f",
        "simplified_mini-rotate90-s0-44d2cdd3a7a5",
        "simplified_mini-no_pooling-s0-5ea527c5a1c8",
        "simplified_mini-untrained-s0-6b11a1d9e4b6",
    ],
    "smoke": [
        "simplified_mini-baseline-s0-8e9a4da56af5",
        "simplified_mini-rotate90-s0-15b46097a45f",
        "simplified_mini-random_rotation-s0-64328b94143b",
        "simplified_mini-no_pooling-s0-db8c3b6dab38",
        "simplified_mini-x_pool-s0-045802f9e56a",
        "simplified_mini-untrained-s0-7724197f3920",
    ],
    "photos": [
        "simplified_mini-baseline-s0-003d0ee7a4c2",
        "simplified_mini-rotate90-s0-cae9a83cd2a9",
        "simplified_mini-random_rotation-s0-dd66d04df7b8",
        "simplified_mini-no_pooling-s0-5890c09d01b3",
        "simplified_mini-untrained-s0-7859158d30ff",
    ],
    "smoke-full": [
        "simplified-baseline-s0-9b6100f96db9",
        "simplified_mini-baseline-s0-9eff5f920e15",
        "resnet50-baseline-s0-a28ea6462d90",
        "alexnet-baseline-s0-a2991c51d518",
    ],
}
MENDED = {"inception_v1": "inception_v1-baseline-s0-895d890ab5f9", "vgg19": "vgg19-baseline-s0-6e348a6eab19"}
"""What was named so before its definition was mended."""
MENDED_INTERVENTIONS = ["max_pool_fc4096", "channel_groups"]


def ids(*settings: str, grid: str = "demo") -> list[str]:
    return [plan.trial_id for plan in expand(load_grid(grid, list(settings))).plans]


@pytest.mark.parametrize("grid", IDS)
def test_what_was_never_mended_keeps_its_id(grid: str) -> None:
    others = {
        "demo": ["recipe=small"],
        "photos": ["data=tiny", "recipe=small", "recipe.epochs=15", "recipe.weight_decay_body=0.005"],
        "smoke-full": ["interventions=[baseline]"],
    }
    settings = others.get(grid, [])
    kept = [trial_id for trial_id in ids(*settings, grid=grid) if not trial_id.startswith(tuple(MENDED))]
    assert kept == IDS[grid]


@pytest.mark.parametrize("architecture", MENDED)
def test_what_was_mended_has_another_id(architecture: str) -> None:
    planned = expand(load_grid("smoke-full", [f"architectures=[{architecture}]"])).plans
    assert {plan.spec.architecture_revision for plan in planned} == {ARCHITECTURES[architecture].revision} != {1}
    assert MENDED[architecture] not in [plan.trial_id for plan in planned]
    first = planned[0].spec.model_copy(update={"architecture_revision": 1})
    assert first.trial_id == MENDED[architecture]


def test_only_mended_interventions_have_new_ids() -> None:
    planned = [plan.spec for plan in expand(load_grid("demo", ["interventions=all"])).plans]
    assert [spec.intervention for spec in planned if spec.intervention_revision > 1] == MENDED_INTERVENTIONS


def test_a_mended_intervention_changes_the_ids_of_its_own_trials_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids()
    monkeypatch.setitem(INTERVENTIONS, "no_pooling", replace(INTERVENTIONS["no_pooling"], revision=2))
    after = ids()
    changed = [old.rsplit("-", 1)[0] for old, new in zip(before, after, strict=True) if old != new]
    assert changed == ["simplified_mini-no_pooling-s0"]


def test_a_spec_without_revisions_is_one_of_the_first(plan: Plan) -> None:
    written = plan.spec.model_dump(mode="json")
    assert not [key for key in written if key.endswith("_revision")]
    assert TrialSpec.model_validate(written) == plan.spec
    mended = plan.spec.model_copy(update={"intervention_revision": 3})
    assert TrialSpec.model_validate_json(mended.model_dump_json()) == mended


def test_a_trial_of_an_older_definition_is_not_trained_under_its_id(
    plan: Plan, sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.add([plan])
    monkeypatch.setitem(ARCHITECTURES, "simplified_mini", replace(ARCHITECTURES["simplified_mini"], revision=2))
    with pytest.raises(ValueError, match="planned with revision 1 of simplified_mini, which is at revision 2 here"):
        run_trial(sweep.trial(plan.trial_id), None, threads=1)
    assert sweep.trial(plan.trial_id).status().final


@pytest.mark.parametrize("grid", grid_names())
@pytest.mark.parametrize("architecture", ["vgg19", "alexnet"])
def test_no_shipped_recipe_trains_networks_without_batch_norm_as_fast_as_the_others(
    grid: str, architecture: str
) -> None:
    recipe = load_grid(grid, []).recipe
    lr = recipe.of_architecture(architecture).lr
    assert lr <= 0.01 * max(1, recipe.batch_size[-1].size / 256)  # torchvision's references: 0.01 for 256 images
    assert recipe.of_architecture("resnet50").lr == recipe.lr


def test_values_of_one_architecture_are_in_its_specs_alone_and_in_plain(plan: Plan) -> None:
    settings = ["architectures=[simplified_mini, alexnet]", "data=tiny"]
    own = ["recipe.of={alexnet: {lr: 0.003, batch_size: 4}}"]
    without, with_own = (expand(load_grid("demo", [*settings, *more])).plans for more in (["recipe.of={}"], own))
    for before, after in zip(without, with_own, strict=True):
        if before.spec.architecture == "simplified_mini":
            assert after.trial_id == before.trial_id
        else:
            assert (after.spec.recipe.lr, after.spec.recipe.batch_size[0].size) == (0.003, 4)
            plain = [*settings, "recipe.of={}", "recipe.lr=0.003", "recipe.batch_size=4"]
            assert after.trial_id in [plan.trial_id for plan in expand(load_grid("demo", plain)).plans]


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("recipe.of={vgg91: {lr: 0.1}}", "did you mean 'vgg19'?"),
        ("recipe.of={vgg19: {lrr: 0.1}}", "of.vgg19: unknown key 'lrr'; did you mean 'lr'?"),
        ("recipe.of={vgg19: {of: {}}}", "of.vgg19: unknown key 'of'"),
        ("recipe.of={vgg19: {lr: -1}}", "of.vgg19: lr: "),
        ("recipe.epochs=1000000000000", "less than or equal to 100000, not 1000000000000"),
        ("resources.cpus=100000", "less than or equal to 1024, not 100000"),
        ("resources.gpus=1.5", "resources.gpus: must be a share of one GPU (0 to 1) or a whole number, not 1.5"),
        ("resources.gpus=65", "less than or equal to 64, not 65"),
        ("resources.gpus=4", "1 CPUs can't be spread evenly over 4 GPUs; set cpus to a multiple of gpus, such as 4"),
        ("resources.accelerator='H 100'", "resources.accelerator: "),
        ("resources.of={vgg91: {gpus: 1}}", "did you mean 'vgg19'?"),
        ("resources.of={vgg19: {gpu: 1}}", "of.vgg19: unknown key 'gpu'; did you mean 'gpus'?"),
        ("resources.of={vgg19: {of: {}}}", "of.vgg19: unknown key 'of'"),
        ("resources.of.vgg19.gpus=1.5", "of.vgg19: gpus: must be a share of one GPU"),
    ],
)
def test_what_no_recipe_can_mean_is_one_line(setting: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r".+") as error:
        load_grid("demo", [setting])
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_an_architectures_own_resources_are_its_trials_alone_and_no_part_of_their_ids() -> None:
    settings = ["architectures=[simplified_mini, vgg19]", "data=tiny", "resources={cpus: 2, gpus: 0.5}"]
    own = ["resources.of.vgg19.gpus=4", "resources.of.vgg19.cpus=16", "resources.of.vgg19.accelerator=H100"]
    plain, with_own = (expand(load_grid("demo", [*settings, *more])).plans for more in ([], own))
    assert [plan.trial_id for plan in plain] == [plan.trial_id for plan in with_own]
    taken = {plan.spec.architecture: plan.resources for plan in with_own}
    assert taken == {
        "simplified_mini": Resources(cpus=2, gpus=0.5),
        "vgg19": Resources(cpus=16, gpus=4, accelerator="H100"),
    }


def test_a_wrong_value_that_means_gigabytes_is_shown_by_its_beginning() -> None:
    value: object = "x"
    for _ in range(12):
        value = [value] * 9
    document = load_grid("demo", []).model_dump(mode="json") | {"seeds": value}
    with pytest.raises(ValidationError) as error:
        Grid.model_validate(document)
    assert len(explain(error.value, Grid)) < 200


@pytest.mark.parametrize("settings", [["recipe.lr_schedule={}"], ["seeds=[{}]"], ["recipe.epochs={}"]])
def test_a_long_wrong_value_is_shown_by_its_beginning(settings: list[str]) -> None:
    long = str([["x"] * 200] * 200)
    with pytest.raises(ValueError, match=r"recipe|seeds") as error:
        load_grid("demo", [setting.format(long) for setting in settings])
    assert len(str(error.value)) < 300


def test_of_many_repeated_seeds_some_are_named() -> None:
    with pytest.raises(ValueError, match=r"seeds names 0, 1, 10, 11, 12 and 95 others more than once"):
        load_grid("demo", [f"seeds={[*range(100), *range(100)]}"])


def test_many_seeds_are_looked_through_once() -> None:
    """Compares each with each, 200,000 seeds would take minutes; told by the comparisons made, not by the clock."""
    compared = [0]

    class Seed(int):
        def __eq__(self, other: object) -> bool:
            compared[0] += 1
            return int(self) == other

        __hash__ = int.__hash__

    grid = load_grid("demo", [])
    seeds = tuple(Seed(seed) for seed in range(500))
    grid.model_copy(update={"seeds": seeds})._no_repetition()  # type: ignore[operator]
    assert compared[0] <= len(seeds)


@pytest.mark.parametrize(
    ("architecture", "size", "excluded"),
    [
        ("resnet50", 32, {"padding_reflect"}),  # without its pool there are no positions
        ("resnet50", 64, set()),
        ("inception_v1", 32, {"padding_reflect", "padding_circular", "blur_pool"}),
        ("simplified_mini", 16, {"padding_reflect", "no_pooling_padding_reflect"}),
    ],
)
def test_cells_whose_networks_can_not_run_are_excluded_with_what_pytorch_says(
    architecture: str, size: int, excluded: set[str]
) -> None:
    settings = [f"architectures=[{architecture}]", "interventions=all", f"data={{name: scenes, image_size: {size}}}"]
    plans = expand(load_grid("demo", settings)).plans
    why = {plan.spec.intervention: plan.excluded for plan in plans if plan.excluded}
    assert {name for name, reason in why.items() if "positions" not in reason} == excluded
    for name in excluded:
        assert why[name].startswith(f"it can't take images of {size} pixels (")
