"""The stages of a label run: one file each, all of them listed here in the order of the layout."""

from labelgen.stages.clip import CLIP
from labelgen.stages.images import IMAGES
from labelgen.stages.instance_labels import INSTANCE_LABELS
from labelgen.stages.instances import INSTANCES
from labelgen.stages.labels import LABELS
from labelgen.stages.pairs import PAIRS
from labelgen.stages.points import POINTS
from labelgen.stages.sam import SAM
from labelgen.stages.stage import Stage, Teacher
from labelgen.stages.sweeps import SWEEPS
from labelgen.stages.text import TEXT
from labelgen.stages.time import TIME
from labelgen.stages.truth import TRUTH

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (TEXT, IMAGES, CLIP, SAM, POINTS, PAIRS, LABELS, TRUTH, SWEEPS, INSTANCES, INSTANCE_LABELS, TIME)
}
"""All stages by the name of the group that they make."""

TEACHERS: dict[str, Teacher] = {stage.teacher.name: stage.teacher for stage in STAGES.values() if stage.teacher}
"""All teachers by name."""
