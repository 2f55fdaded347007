"""Build a cache from the declarations of the stages alone: one after the other in this process, without Ray."""

from dataclasses import replace
from pathlib import Path

from cache_schemas.store import Cache
from labelgen.stages import STAGES, TEACHERS
from labelgen.stages.inputs import Arrays, ShardInputs
from labelgen.stages.stage import TeacherCall
from pipelines.config import RunConfig
from pipelines.manifest import make_manifest
from pipelines.plan import GroupPlan, Planner
from pipelines.resolve import open_dataset, resolve


def build_cache(config: RunConfig, data: Path, url: str) -> None:
    """Make a whole cache of a dataset."""
    adapter = open_dataset(config.dataset, data, config.sweeps.count)
    resolved = resolve(config, adapter)
    cache = Cache.create(url, make_manifest(resolved))
    planner = Planner(data, cache, resolved)
    models = {name: teacher.load(resolved, "cpu") for name, teacher in TEACHERS.items()}

    def make(group: GroupPlan) -> Arrays:
        inputs = ShardInputs(resolved, adapter, group.samples, cache, group.path.shard)
        steps = STAGES[group.path.name].build
        if not isinstance(steps, TeacherCall):
            return steps(inputs)
        model = models[steps.teacher.name]
        decoded = steps.decode(inputs) if steps.decode else None
        part = steps.fetch(model, steps.compute(model, steps.receive(model, inputs, decoded)))
        return steps.gather([part])

    def seal(group: GroupPlan) -> None:
        arrays = make(group)
        samples = {"samples": len(group.samples)} if group.path.shard else {}
        counts = {**samples, **STAGES[group.path.name].counts(arrays)}
        cache.write_group(group.path, arrays, replace(group.provenance, counts=counts))

    for group in planner.due_roots():
        seal(group)
    for shard in planner.plan(adapter.scenes(config.split, config.version)):
        cache.write_shard_record(shard.key, shard.record)
        waiting = [name for name in STAGES if name in shard.todo]
        while waiting:
            name = next(name for name in waiting if not set(STAGES[name].made_from) & set(waiting))
            seal(planner.group(shard, name))
            waiting.remove(name)
