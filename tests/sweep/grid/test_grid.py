"""Grids: the full product, ids that mean the content, one clear line for each mistake."""

import json
import re
from pathlib import Path

import pytest
import yaml

import models
from models.architectures import ARCHITECTURES
from models.interventions import INTERVENTIONS
from sweep.data.registry import DATASETS
from sweep.grid.document import grid_names, preset_names
from sweep.grid.expand import expand, require_steps
from sweep.grid.load import load_grid
from sweep.results.compact import compact_all
from sweep.results.tables import read_table
from sweep.spec import Plan, TrialSpec
from sweep.store.sweep_dir import SweepDir
from sweep.training.schedule import Schedule


def test_a_grid_is_the_product_of_what_it_names() -> None:
    plans = expand(load_grid("demo", ["seeds=[0,1,2]"])).plans
    assert len(plans) == len({plan.trial_id for plan in plans}) == 4 * 3
    assert {plan.spec.intervention for plan in plans} == {"baseline", "rotate90", "no_pooling", "untrained"}
    assert all(plan.spec.init_seed == plan.spec.data_seed for plan in plans)
    assert plans[0].layers == ("features.3b.conv", "features.3a.conv")


def test_each_plan_names_its_primary_endpoint_and_keeps_it() -> None:
    plans = expand(load_grid("demo", [])).plans
    endpoints = {plan.spec.intervention: plan.primary for plan in plans}
    assert endpoints == dict.fromkeys(endpoints, "horizontal") | {"rotate90": "vertical"}
    assert [Plan.from_json(json.loads(json.dumps(plan.to_json()))) for plan in plans] == list(plans)
    older = {key: value for key, value in plans[0].to_json().items() if key != "primary"}
    assert Plan.from_json(older).primary is None


LARGE = {"full", "smoke-full"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in grid_names()]
)
def test_every_shipped_grid_is_the_product_of_what_it_names_and_opens_with_its_command(name: str) -> None:
    grid = load_grid(name, ["data=tiny"])
    plans = expand(grid).plans
    seeds = {intervention: grid.seeds_of.get(intervention, grid.seeds) for intervention in grid.interventions}
    assert [(plan.spec.architecture, plan.spec.intervention, plan.spec.init_seed) for plan in plans] == [
        (architecture, intervention, seed)
        for architecture in grid.architectures
        for intervention in grid.interventions
        for seed in seeds[intervention]
    ]
    text = (Path("sweep/grids") / f"{name}.yaml").read_text()
    assert text.startswith(f"# sweep launch {name}")
    if "all" in (yaml.safe_load(text)["architectures"], yaml.safe_load(text)["interventions"]):
        assert re.search(r"\d+ (cells|trials|networks)", text) is None  # the next entry would make it untrue


def test_all_stands_for_everything_that_the_project_names() -> None:
    grid = load_grid("full", ["data=tiny"])
    assert (grid.architectures, grid.interventions) == (tuple(ARCHITECTURES), tuple(INTERVENTIONS))
    grid = load_grid("interventions", [])
    assert (grid.interventions, grid.seeds) == (tuple(INTERVENTIONS), (0, 1, 2))


@pytest.mark.parametrize(("name", "networks"), [("article-simplified", 17), ("article-common", 9)])
def test_the_articles_grids_have_the_articles_numbers_of_networks(name: str, networks: int) -> None:
    grid = load_grid(name, ["data=tiny"])
    of_each = [len(grid.seeds_of.get(intervention, grid.seeds)) for intervention in grid.interventions]
    assert len(grid.architectures) * sum(of_each) == networks


@pytest.mark.parametrize("name", preset_names("recipe"))
def test_every_shipped_recipe_trains_to_its_end_with_finite_rates(name: str) -> None:
    recipe = load_grid("demo", [f"recipe={name}"]).recipe.of_architecture("simplified_mini")
    schedule = Schedule(recipe, images=2 * max(phase.size for phase in recipe.batch_size))
    rates = [schedule.learning_rate(epoch, 0) for epoch in range(recipe.epochs)]
    assert schedule.steps >= recipe.epochs
    assert all(0 < rate <= recipe.lr for rate in rates)


@pytest.mark.parametrize("name", preset_names("data"))
def test_every_shipped_data_preset_is_data_that_a_grid_can_name(name: str) -> None:
    grid = load_grid("demo", [f"data={name}"])
    assert grid.data.name in DATASETS
    assert expand(grid).plans[0].spec.data.num_classes >= 2


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_names_its_source_and_options_with_defaults(name: str) -> None:
    assert len(DATASETS[name].source) > 3
    assert DATASETS[name].options() == DATASETS[name].options.model_validate({})
    assert load_grid("demo", [f"data={{name: {name}}}"]).data.name == name


def test_a_named_recipe_stands_for_its_content_and_can_be_changed() -> None:
    assert load_grid("demo", ["recipe=article"]).recipe.epochs == 90
    assert load_grid("demo", ["recipe=article", "recipe.epochs=3"]).recipe.epochs == 3
    with pytest.raises(ValueError, match="unknown recipe 'artcle'; did you mean 'article'"):
        load_grid("demo", ["recipe=artcle"])


def test_a_cell_without_meaning_is_excluded_with_its_reason() -> None:
    settings = ["data={name: scenes, image_size: 32}", "architectures=[resnet50]"]
    plans = {plan.spec.intervention: plan for plan in expand(load_grid("demo", settings)).plans}
    assert plans["no_pooling"].excluded == "the last map is 1x1: there are no positions to tell apart"
    assert plans["baseline"].excluded is None


def timm_plans(*names: str) -> dict[tuple[str, str], Plan]:
    settings = [f"architectures=[{', '.join(f'timm:{name}' for name in names)}]", "interventions=all", "data=tiny"]
    plans = expand(load_grid("demo", settings)).plans
    return {(plan.spec.architecture, plan.spec.intervention): plan for plan in plans}


def test_models_of_timm_have_the_interventions_that_fit_any_model() -> None:
    pytest.importorskip("timm", reason="timm is an optional extra")
    plans = timm_plans("resnet18", "vgg11")
    excluded = {intervention: plan.excluded for (name, intervention), plan in plans.items() if name == "timm:resnet18"}
    assert [name for name, reason in excluded.items() if reason is None] == ["baseline", "rotate90", "no_pooling"]
    assert excluded["x_pool"] == "only baseline, rotate90 and no_pooling are defined for timm:resnet18"
    assert "there are no positions to tell apart" in (plans["timm:vgg11", "no_pooling"].excluded or "")
    assert plans["timm:resnet18", "baseline"].expected == ("unknown",) * 3


def test_an_id_is_the_name_of_one_folder_whatever_the_architecture_is_called() -> None:
    pytest.importorskip("timm", reason="timm is an optional extra")
    plan = timm_plans("resnet18")["timm:resnet18", "rotate90"]
    assert plan.trial_id.startswith("timm-resnet18-rotate90-s0-")
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))).spec.architecture == "timm:resnet18"
    odd = plan.spec.model_copy(update={"architecture": "timm:hub/a b"})
    assert odd.trial_id.startswith("timm-hub-a-b-rotate90-s0-")
    assert odd.trial_id != odd.model_copy(update={"architecture": "timm-hub/a b"}).trial_id


def test_parameters_are_counted_as_they_are_trained_and_stand_in_the_results(sweep: SweepDir) -> None:
    plans = expand(load_grid("demo", ["interventions=all"])).plans
    for plan in plans:
        data = plan.spec.data
        net = models.build(plan.spec.architecture, plan.spec.intervention, data.num_classes, data.image_size, seed=0)
        assert plan.parameters == sum(parameter.numel() for parameter in net.parameters())
    sweep.add(plans)
    compact_all(sweep)
    trials = read_table(sweep.path, "trials")
    assert dict(zip(trials["trial_id"], trials["parameters"], strict=True)) == {
        plan.trial_id: plan.parameters for plan in plans
    }


def test_an_id_depends_on_the_whole_spec_and_on_nothing_else() -> None:
    def ids(*settings: str) -> set[str]:
        return {plan.trial_id for plan in expand(load_grid("demo", list(settings))).plans}

    base = ids()
    assert ids("resources.cpus=2", "analysis.actors=3", "name=other") == base
    for setting in ("recipe.lr=0.2", "seeds=[1]", "data.options={noise: 0.3}", "data.seed=1", "recipe.precision=bf16"):
        assert ids(setting).isdisjoint(base), setting


def test_the_id_of_a_spec_is_the_same_for_ever() -> None:
    """Ids are names of folders that people keep; if this fails, SCHEMA must rise."""
    ids = [plan.trial_id for plan in expand(load_grid("demo", ["recipe=small"])).plans]
    assert ids[0] == "simplified_mini-baseline-s0-b6ddbfd3968f"
    split = expand(load_grid("demo", ["recipe=small", "recipe.out_of_memory=split"])).plans[0]
    assert split.trial_id not in ids
    assert TrialSpec.model_validate(split.spec.model_dump(mode="json")) == split.spec


def test_a_spec_survives_json() -> None:
    spec = expand(load_grid("demo", [])).plans[0].spec
    assert TrialSpec.model_validate(json.loads(spec.model_dump_json())) == spec


@pytest.mark.parametrize(
    ("grid", "settings", "complaint"),
    [
        ("demoo", [], "unknown grid 'demoo'; did you mean 'demo'? Allowed:"),
        ("demo", ["architectures=[simplified_min]"], "did you mean 'simplified_mini'?"),
        ("demo", ["architectures=[timm:resnet19]"], "timm has no model 'resnet19'; did you mean 'timm:resnet18'?"),
        ("demo", ["architectures=[timm:vit_tiny_patch16_224]"], "only convolutional models can"),
        ("demo", ["interventions=[no_poolin]"], "did you mean 'no_pooling'?"),
        ("demo", ["recipe.epoch=3"], "unknown key 'recipe.epoch'; did you mean 'epochs'? Allowed: epochs, "),
        ("demo", ["recipe.lr_schedule=onecycle"], "did you mean 'one_cycle'? Allowed: one_cycle, constant"),
        ("demo", ["data.options.positon=centred"], "did you mean 'position'?"),
        ("demo", ["recipe.epochs=none"], "recipe.epochs: "),
        ("demo", ["recipe.lr=-1"], "recipe.lr: "),
        ("demo", ["seeds=[0,0]"], "seeds names 0 more than once"),
        ("demo", [f"seeds={[*range(50_000)]}"], "x seeds is 200,000 trials, and a grid has 100,000 at most"),
        ("demo", ["recipe.batch_size=[{from_epoch: 3, size: 8}]"], "must start at epoch 0"),
        ("demo", ["data.root=/tmp"], "remove data.root"),
        ("demo", ["nonsense"], "must look like"),
        ("demo", ["recipe.epochs.deep=1"], "has no keys below it"),
        ("gone.yaml", [], "no grid file"),
        (__file__, [], "a grid file must end in .yaml"),
        ("demo", ["seeds=abc"], "seeds: must be a list, such as [0, 1], not 'abc'"),
        ("demo", ["seeds=[1, x]"], "seeds.1: must be a whole number, not 'x'"),
        ("demo", ["resources.cpus=1.5"], "resources.cpus: must be a whole number, not 1.5"),
        ("demo", ["data=[1]"], "data: must be a mapping of keys to values, not [1]"),
        ("demo", ["name=[" + "long, " * 1000 + "]"], "name: must be text, not ['long', 'long', "),
        ("demo", ["recipe={epochs: 1, epochs: 2}"], "the value names 'epochs' twice"),
    ],
)
def test_each_mistake_is_one_line_that_names_it(grid: str, settings: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=r".+") as error:
        expand(load_grid(grid, settings))
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_batch_larger_than_the_data_set_is_refused_before_anything_is_trained() -> None:
    few = ["data.options={train_images: 63, val_images: 8}", "recipe.batch_size=64"]
    with pytest.raises(ValueError, match=r"batch size 64 is larger than the 63 training images; lower recipe\.batch"):
        require_steps(expand(load_grid("demo", few)))
    require_steps(expand(load_grid("demo", [*few, "recipe.batch_size=63"])))
    require_steps(expand(load_grid("demo", [*few, "recipe.of.simplified_mini.batch_size=32"])))


def test_a_batch_must_be_one_that_several_gpus_can_share() -> None:
    four = ["resources={gpus: 4, cpus: 4}"]
    with pytest.raises(ValueError, match=r"simplified_mini on 4 GPUs needs recipe\.ghost_batch"):
        require_steps(expand(load_grid("demo", four)))
    require_steps(expand(load_grid("demo", [*four, "recipe.ghost_batch=16"])))  # batches of 64
    with pytest.raises(ValueError, match=r"64 images can't be split by the number of GPUs, 4, .* a multiple of 128"):
        require_steps(expand(load_grid("demo", [*four, "recipe.ghost_batch=32"])))
    require_steps(expand(load_grid("demo", ["resources.gpus=0.5"])))


def test_images_too_small_for_a_network_are_refused_in_words() -> None:
    small = load_grid("demo", ["architectures=[vgg19]", "data.image_size=16"])
    with pytest.raises(ValueError, match=r"vgg19 can't take images of 16 pixels; raise data\.image_size"):
        expand(small)


@pytest.mark.parametrize(
    "setting", ["recipe.lr=.inf", "recipe.lr=.nan", "seeds=[9223372036854775808]", "seeds_of={baseline: [0, 0]}"]
)
def test_numbers_that_no_table_can_hold_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=setting.split("=")[0].split("_of")[0]):
        load_grid("demo", [setting])
