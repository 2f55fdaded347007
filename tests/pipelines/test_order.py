"""The order of work in one shard, from what the stages are made from."""

from cache_schemas.documents import Teachers
from cache_schemas.taxonomy import load_taxonomy
from labelgen.prompts import load_prompts
from labelgen.stages import STAGES, TEACHERS
from labelgen.stages.inputs import ResolvedSettings
from labelgen.teachers.checkpoints import identify
from pipelines.config import load_config
from pipelines.order import Step, steps_of

ALL = [name for name, stage in STAGES.items() if not stage.at_root]


def resolved(*overrides: str) -> ResolvedSettings:
    settings = load_config("nuscenes", teachers="untrained", overrides=overrides)
    taxonomy = load_taxonomy("nuscenes16")
    networks = {name: identify(settings.of_teacher(name)) for name in TEACHERS}
    teachers = Teachers(preset="untrained", networks=networks)
    return ResolvedSettings(settings, taxonomy, load_prompts("nuscenes-paper", taxonomy), teachers)


DEFAULT = resolved()


def by_name(steps: list[Step]) -> dict[str, Step]:
    return {step.name: step for step in steps}


def test_raw_files_are_read_first_then_teachers_work_side_by_side_then_labels() -> None:
    steps = by_name(steps_of(ALL, DEFAULT))
    assert {name: set(step.after) for name, step in steps.items()} == {
        "images": set(),
        "points": set(),
        "sweeps": set(),
        "clip": {"images", "points", "sweeps"},
        "sam": {"images", "points", "sweeps"},
        "labels": {"clip", "sam", "points"},
        "instances": {"points"},
        "instance_labels": {"labels", "clip", "points", "instances", "sam"},
        "time": {"labels", "clip", "points", "sam"},
    }
    assert [name for name, step in steps.items() if step.reads_raw_files] == ["images", "points", "sweeps"]
    assert steps["clip"].roots == {"text"}


def test_clip_waits_for_sam_where_it_reads_what_sam_found() -> None:
    for setting in ("clip.scope=sam", "clip.proxy=sam"):
        assert "sam" in by_name(steps_of(ALL, resolved(setting)))["clip"].after


def test_stages_that_read_clouds_share_a_task() -> None:
    assert [stage.name for stage in by_name(steps_of(ALL, DEFAULT))["points"].stages] == ["points", "pairs", "truth"]


def test_a_step_waits_only_for_what_is_due() -> None:
    steps = by_name(steps_of({"clip", "labels"}, DEFAULT))
    assert {name: set(step.after) for name, step in steps.items()} == {"clip": set(), "labels": {"clip"}}


def test_nothing_due_is_nothing_to_do() -> None:
    assert steps_of((), DEFAULT) == []
