"""The table of stages against the layout."""

import subprocess
import sys

from cache_schemas.layout import ROOT_GROUPS, SHARD_GROUPS
from cache_schemas.layout import TEACHERS as TEACHERS_OF_LAYOUT
from labelgen.settings import LabelSettings
from labelgen.stages import STAGES, TEACHERS

GROUPS = {**ROOT_GROUPS, **SHARD_GROUPS}


def test_each_group_of_the_layout_has_a_stage_in_the_same_order() -> None:
    assert list(STAGES) == list(GROUPS)
    assert {name: stage.at_root for name, stage in STAGES.items()} == {name: name in ROOT_GROUPS for name in GROUPS}


def test_the_layout_and_the_stages_name_the_same_teachers() -> None:
    assert {name: stage.teacher and stage.teacher.name for name, stage in STAGES.items()} == {
        name: group.teacher for name, group in GROUPS.items()
    }
    assert set(TEACHERS) == set(TEACHERS_OF_LAYOUT) <= set(LabelSettings.model_fields)


def test_groups_are_made_from_groups_without_cycles() -> None:
    def sources(name: str, below: tuple[str, ...] = ()) -> None:
        assert name not in below, f"{name} is made from itself"
        for source in STAGES[name].made_from:
            sources(source, (*below, name))

    for name, stage in STAGES.items():
        sources(name)
        assert not (stage.at_root and stage.made_from), "the driver makes root groups before all others"


def test_a_task_is_made_of_cpu_stages_or_of_one_teacher() -> None:
    for stage in STAGES.values():
        others = [other for other in STAGES.values() if other.task_name == stage.task_name and other is not stage]
        assert not (stage.teacher and others)


def test_the_declarations_load_no_network() -> None:
    """Plans are made by a process that needs neither torch nor ray."""
    heavy = "import sys, labelgen.stages; print({'torch', 'ray', 'open_clip', 'segment_anything'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout
    assert printed == "set()\n"
