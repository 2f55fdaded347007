"""Build a cache from the declarations of the stages alone: one after the other in this process, without Ray."""

from dataclasses import replace
from pathlib import Path

from labelgen.stages import STAGES, TEACHERS
from labelgen.stages.inputs import Arrays, ShardInputs
from labelgen.stages.stage import TeacherCall
from pipelines.config import RunConfig
from pipelines.manifest import open_for_run, update_manifest
from pipelines.plan import GroupPlan, Planner
from pipelines.resolve import open_dataset, read_scenes, resolve, with_modalities_of
from pipelines.teaching import cut_into_calls


def build_cache(config: RunConfig, data: Path, url: str, part: tuple[int, int] = (1, 1)) -> None:
    """Make a whole cache of a dataset, or of one part of its shards, or extend one."""
    adapter = open_dataset(config.dataset, data, config.sweeps.count)
    scenes = read_scenes(config, adapter)
    resolved = with_modalities_of(scenes, resolve(config, adapter))
    cache = open_for_run(url, resolved)
    update_manifest(cache, resolved)
    planner = Planner(data, cache, resolved)
    models = {name: teacher.load(resolved, "cpu") for name, teacher in TEACHERS.items()}

    def make(group: GroupPlan) -> Arrays:
        steps = STAGES[group.path.name].build
        if not isinstance(steps, TeacherCall):
            return steps(ShardInputs(resolved, adapter, group.samples, cache, group.path.shard))
        model, parts, first_image = models[steps.teacher.name], [], 0
        for samples in cut_into_calls(group.samples, 1000) or [()]:
            inputs = ShardInputs(resolved, adapter, samples, cache, group.path.shard, first_image)
            decoded = steps.decode(inputs) if steps.decode else None
            parts.append(steps.fetch(model, steps.compute(model, steps.receive(model, inputs, decoded))))
            first_image += sum(len(sample.cameras) for sample in samples)
        return steps.gather(parts)

    def seal(group: GroupPlan) -> None:
        arrays = make(group)
        samples = {"samples": len(group.samples)} if group.path.shard else {}
        counts = {**samples, **STAGES[group.path.name].counts(arrays)}
        cache.write_group(group.path, arrays, replace(group.provenance, counts=counts))

    for group in planner.due_roots():
        seal(group)
    for shard in planner.plan(scenes, part=part):
        cache.write_shard_record(shard.key, shard.record)
        waiting = [name for name in STAGES if name in shard.todo]
        while waiting:
            name = next(name for name in waiting if not set(STAGES[name].sources(resolved)) & set(waiting))
            seal(planner.group(shard, name))
            waiting.remove(name)
