"""Input made to do harm: it is refused with one line, or harmless; nothing runs, leaves its folder, or fills memory."""

import io
import json
import os
import resource
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from cache_schemas.errors import CacheError, ConfigError
from cache_schemas.store import Cache
from labelgen import pictures
from labelgen.datasets.nuscenes.adapter import NuScenes
from labelgen.errors import DatasetError, PromptsError, SampleError, WeightsError
from labelgen.prompts import load_prompts
from labelgen.samples import Sample
from labelgen.teachers.checkpoints import read_state_dict
from pipelines.config import load_config
from pipelines.manifest import make_manifest
from pipelines.resolve import resolve

Refused = Callable[..., AbstractContextManager[None]]

VERSION = "v1.0-mini"
ESCAPE = "\x1b]0;mine\x07"
LEAVING = [
    "../../../../etc/passwd",
    "/etc/passwd",
    "samples/../../secret",
    "..",
    "",
    "samples/a\x00b",
    f"samples/{ESCAPE}",
]


def change_rows(folder: Path, table: str, change: Callable[[dict[str, object]], object]) -> None:
    file = folder / VERSION / f"{table}.json"
    rows = json.loads(file.read_text())
    for row in rows:
        change(row)
    file.write_text(json.dumps(rows))


def change_one(folder: Path, channel: str, **changes: object) -> Sample:
    """Change the keyframe reading of one channel of the first sample; returns that sample as it was."""
    victim = NuScenes(folder).scenes("all", None)[0].samples[0]
    path = victim.cloud_path if channel == "LIDAR_TOP" else victim.cameras[0].image_path
    change_rows(folder, "sample_data", lambda row: row.update(changes) if row["filename"] == path else None)
    return victim


def samples_of(folder: Path) -> dict[str, Sample]:
    return {sample.token: sample for scene in NuScenes(folder).scenes("all", None) for sample in scene.samples}


@contextmanager
def little_memory() -> Iterator[None]:
    """Allow no more than 300 MB beyond what the process has mapped."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 300_000_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


# Tables


@pytest.mark.parametrize("channel", ["LIDAR_TOP", "CAM_FRONT"])
@pytest.mark.parametrize("path", LEAVING)
def test_a_file_name_that_leaves_the_data_is_a_defect_of_its_sample(
    damaged_folder: Path, channel: str, path: str
) -> None:
    (damaged_folder.parent / "secret").write_text("mine")
    victim = change_one(damaged_folder, channel, filename=path)
    found = samples_of(damaged_folder)
    assert f"{path!r} is not a file inside the dataset" in str(found[victim.token].defect)
    assert str(found[victim.token].defect).isprintable() and found[victim.token].input_paths == ("",)
    assert not any(sample.defect for token, sample in found.items() if token != victim.token)


@pytest.mark.parametrize("path", LEAVING)
def test_an_adapter_reads_nothing_outside_its_folder(nuscenes_folder: Path, path: str, refused: Refused) -> None:
    with refused(SampleError, repr(path), "is not a file inside"):
        NuScenes(nuscenes_folder).read_bytes(path)


def test_a_label_file_that_leaves_the_data_is_refused_when_it_is_read(damaged_folder: Path, refused: Refused) -> None:
    (damaged_folder.parent / "secret.bin").write_bytes(b"1")
    change_rows(damaged_folder, "lidarseg", lambda row: row.update(filename="../secret.bin"))
    sample = NuScenes(damaged_folder).scenes("all", None)[0].samples[0]
    with refused(SampleError, "'../secret.bin' is not a file inside"):
        NuScenes(damaged_folder).read_point_truth(sample, 1)


def test_a_link_that_the_user_made_is_followed(damaged_folder: Path) -> None:
    sample = NuScenes(damaged_folder).scenes("all", None)[0].samples[0]
    file = damaged_folder / sample.cloud_path
    file.rename(damaged_folder.parent / "elsewhere")
    file.symlink_to(damaged_folder.parent / "elsewhere")
    assert len(NuScenes(damaged_folder).read_cloud(sample).xyz) > 0


@pytest.mark.parametrize("name", ["../../scene", "/scene", "a/b", f"scene{ESCAPE}", "scene\n0001", "", ".", ".."])
@pytest.mark.parametrize(("table", "field"), [("scene", "name"), ("sample", "token")])
def test_names_that_shards_and_files_are_called_by_are_refused(
    damaged_folder: Path, table: str, field: str, name: str, refused: Refused
) -> None:
    change_rows(damaged_folder, table, lambda row: row.update({field: name}))
    with refused(DatasetError, f"{table}.json: {name!r} cannot name a file", "extract the table again"):
        NuScenes(damaged_folder).scenes("all", None)


@pytest.mark.parametrize("size", [(10**6, 10**6), (2**62, 1), (-5, 900), (0, 0)])
def test_a_picture_of_absurd_size_is_a_defect_of_its_sample(damaged_folder: Path, size: tuple[int, int]) -> None:
    victim = change_one(damaged_folder, "CAM_FRONT", width=size[0], height=size[1])
    assert f"{size[0]}x{size[1]} pixels" in str(samples_of(damaged_folder)[victim.token].defect)


def test_a_table_that_is_no_file_or_larger_than_any_is_refused(damaged_folder: Path, refused: Refused) -> None:
    file = damaged_folder / VERSION / "sample.json"
    os.truncate(file, 2**40)
    with refused(DatasetError, file, "not a regular file, or larger than", "extract it again"):
        NuScenes(damaged_folder).scenes("all", None)
    file.unlink()
    os.mkfifo(file)
    with refused(DatasetError, file, "not a regular file, or larger than", "extract it again"):
        NuScenes(damaged_folder).scenes("all", None)


def test_a_table_that_is_nested_without_end_is_refused(damaged_folder: Path, refused: Refused) -> None:
    file = damaged_folder / VERSION / "scene.json"
    file.write_text('[{"token": "a", "name": "b", "more": ' + "[" * 100_000)
    with refused(DatasetError, file, "extract it again"):
        NuScenes(damaged_folder).scenes("all", None)


# Files of samples


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds a few zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    whole = io.BytesIO()
    Image.new("RGB", (16, 16)).save(whole, "JPEG")
    raw = bytearray(whole.getvalue())
    start = raw.index(b"\xff\xc0") + 5
    raw[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(raw)


@pytest.mark.parametrize("bomb", [png_of(100_000, 100_000), jpeg_of(65_000, 65_000)], ids=["png", "jpeg"])
def test_a_picture_that_claims_gigabytes_is_refused_before_it_is_decoded(
    damaged_folder: Path, bomb: bytes, refused: Refused
) -> None:
    sample = NuScenes(damaged_folder).scenes("all", None)[0].samples[0]
    (damaged_folder / sample.cameras[0].image_path).write_bytes(bomb)
    with little_memory(), refused(SampleError, sample.cameras[0].image_path, "restore the file"):
        pictures.read_native_images(NuScenes(damaged_folder), sample)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_a_picture_of_more_than_8_bits_is_refused_and_not_made_white(
    damaged_folder: Path, mode: str, refused: Refused
) -> None:
    sample = NuScenes(damaged_folder).scenes("all", None)[0].samples[0]
    file = damaged_folder / sample.cameras[0].image_path
    size = (sample.cameras[0].width_px, sample.cameras[0].height_px)
    Image.new(mode, size, 30_000).save(file, "PNG" if mode == "I;16" else "TIFF")
    with refused(SampleError, file, "more than 8 bits a channel", "convert the pictures"):
        pictures.read_native_images(NuScenes(damaged_folder), sample)


def test_a_picture_of_ids_may_have_16_bits(damaged_folder: Path) -> None:
    Image.new("I;16", (4, 3), 30_000).save(damaged_folder / "ids.png")
    ids = pictures.read_id_picture(NuScenes(damaged_folder), "ids.png", (3, 4))
    assert (ids == 30_000).all() and ids.shape == (3, 4)


def test_a_file_larger_than_any_cloud_is_refused_before_it_is_read(damaged_folder: Path, refused: Refused) -> None:
    sample = NuScenes(damaged_folder).scenes("all", None)[0].samples[0]
    os.truncate(damaged_folder / sample.cloud_path, 10**12)
    with little_memory(), refused(SampleError, sample.cloud_path, "1,000,000,000,000"):
        NuScenes(damaged_folder).read_cloud(sample)


def test_a_pipe_in_place_of_a_file_does_not_hang(damaged_folder: Path, refused: Refused) -> None:
    sample = NuScenes(damaged_folder).scenes("all", None)[0].samples[0]
    (damaged_folder / sample.cloud_path).unlink()
    os.mkfifo(damaged_folder / sample.cloud_path)
    with refused(SampleError, sample.cloud_path, "not a regular file"):
        NuScenes(damaged_folder).read_cloud(sample)


# Settings and prompts


OBJECTS = [
    "!!python/object/apply:os.system ['touch {ran}']",
    "!!python/object/new:os.mkdir ['{ran}']",
    "!!python/name:os.system",
    "!!python/module:antigravity",
]


@pytest.mark.parametrize("text", OBJECTS)
def test_yaml_builds_no_objects(tmp_path: Path, text: str, refused: Refused, taxonomy) -> None:
    ran, file = tmp_path / "ran", tmp_path / "mine.yaml"
    text = text.format(ran=ran)
    file.write_text(f"dataset: {text}\n")
    with refused(ConfigError, file, "not YAML"):
        load_config("nuscenes", file=file)
    with refused(ConfigError, "--set", "not a YAML value"):
        load_config("nuscenes", overrides=[f"version={text}"])
    file.write_text(f"templates: maskclip85\nclasses: {text}\n")
    with refused(PromptsError, file, "not YAML"):
        load_prompts(str(file), taxonomy)
    assert not ran.exists() and "antigravity" not in sys.modules


def test_yaml_whose_aliases_stand_for_gigabytes_is_refused_at_once(tmp_path: Path, refused: Refused) -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    file = tmp_path / "mine.yaml"
    file.write_text("\n".join([*lines, "version: *a11"]))
    with little_memory(), refused(ConfigError, file, "version = [", "unknown key 'a0'"):
        load_config("nuscenes", file=file)


@pytest.mark.parametrize(
    "text",
    ["templates: *a11\nclasses: {}", "templates: ['{}']\nclasses: {car: *a11}", "taxonomy: *a11"],
    ids=["templates", "names", "taxonomy"],
)
def test_prompts_whose_aliases_stand_for_gigabytes_are_refused_at_once(
    tmp_path: Path, refused: Refused, text: str, taxonomy
) -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    file = tmp_path / "mine.yaml"
    file.write_text("\n".join([*lines, text]))
    with little_memory(), refused(PromptsError, file, "[[...], [...]"):
        load_prompts(str(file), taxonomy)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"[" * 5000, "nested too deeply"), (b"\xff\xfe\x00", "not text"), (b"a: \x1b[2J", "not YAML")],
    ids=["deep", "binary", "escape"],
)
def test_what_is_no_settings_file_is_refused(tmp_path: Path, content: bytes, reason: str, refused: Refused) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with refused(ConfigError, file, reason):
        load_config("nuscenes", file=file)


def test_a_key_that_a_terminal_obeys_is_escaped_in_the_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text('"\\e[2J": 1\n')
    with pytest.raises(ConfigError) as caught:
        load_config("nuscenes", file=file)
    assert "\\x1b[2J" in str(caught.value) and str(caught.value).isprintable()


# Manifests


@pytest.fixture
def cache_folder(tmp_path: Path) -> Path:
    """An empty cache, made by the real settings."""
    manifest = make_manifest(resolve(load_config("nuscenes", teachers="untrained"), NuScenes(tmp_path)))
    Cache.create(str(tmp_path / "cache"), manifest)
    return tmp_path / "cache"


@pytest.mark.parametrize("bad", [ESCAPE, "car\n", "car\u202egnp.exe", "car\ud800"], ids=["osc", "line", "bidi", "half"])
@pytest.mark.parametrize(
    "place",
    [
        "taxonomy.classes.0.name",
        "taxonomy.name",
        "prompts.class_names.car.0",
        "prompts.templates.0",
        "sources.0.dataset",
        "sources.0.split",
    ],
)
def test_a_name_that_a_terminal_obeys_is_refused_in_a_manifest(cache_folder: Path, place: str, bad: str) -> None:
    file = cache_folder / "zarr.json"
    document = json.loads(file.read_text())
    *steps, last = [int(step) if step.isdecimal() else step for step in place.split(".")]
    held = document["attributes"]
    for step in steps:
        held = held[step]
    held[last] = bad
    attributes = document["attributes"]
    attributes["taxonomy_digest"] = _digest([entry["name"] for entry in attributes["taxonomy"]["classes"]])
    file.write_text(json.dumps(document))
    with pytest.raises(CacheError) as caught:
        Cache.open(str(cache_folder))
    message = str(caught.value)
    assert message.isprintable() and "not a valid CacheManifest" in message and "restore the file" in message


@pytest.mark.parametrize("path", ["../../mine", "/mine", "a/b", "a\\b", "", ".", ".."])
@pytest.mark.parametrize("place", ["dataset", "split"])
def test_a_path_in_place_of_a_name_is_refused_in_a_manifest(cache_folder: Path, place: str, path: str) -> None:
    file = cache_folder / "zarr.json"
    document = json.loads(file.read_text())
    document["attributes"]["sources"][0][place] = path
    file.write_text(json.dumps(document))
    with pytest.raises(CacheError, match=f"{place}: .*a name, never a path"):
        Cache.open(str(cache_folder))


def test_html_in_a_class_name_is_only_text(cache_folder: Path) -> None:
    file = cache_folder / "zarr.json"
    document = json.loads(file.read_text())
    classes = document["attributes"]["taxonomy"]["classes"]
    classes[0]["name"] = "<script>alert(1)</script>"
    document["attributes"]["taxonomy_digest"] = _digest([entry["name"] for entry in classes])
    file.write_text(json.dumps(document))
    assert Cache.open(str(cache_folder))[1].taxonomy.names[0] == "<script>alert(1)</script>"


def _digest(names: list[str]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


# Weights; malicious pickles are in test_checkpoints


class Program(torch.nn.Module):
    """Weights with code that runs when a TorchScript archive of it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.weight, self.training = state
        print("the program ran")


def test_a_program_in_place_of_weights_does_not_run(tmp_path: Path, capfd, refused: Refused) -> None:
    path = tmp_path / "ViT-B-16.pt"
    torch.jit.script(Program()).save(str(path))
    torch.jit.load(path)
    assert "the program ran" in capfd.readouterr().out, "to load it is to run it"
    with refused(WeightsError, path, "read safely", "save its tensors as a .safetensors file"):
        read_state_dict(str(path))
    assert "the program ran" not in capfd.readouterr().out


def test_weights_that_would_unpack_to_gigabytes_are_refused(tmp_path: Path, refused: Refused) -> None:
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"weight": torch.zeros(3)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            bomb = entry.filename.endswith("data/0")
            target.writestr(entry.filename, bytes(500_000_000) if bomb else source.read(entry))
    with little_memory(), refused(WeightsError, packed, "is compressed"):
        read_state_dict(str(packed))


def test_tensors_that_claim_more_than_their_file_holds_are_refused(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "weights.safetensors"
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with little_memory(), refused(WeightsError, path, "read safely"):
        read_state_dict(str(path))


@pytest.mark.parametrize("bad", [ESCAPE, "car\u202egnp.exe", "a\nb"], ids=["osc", "bidi", "line"])
def test_a_word_or_template_that_a_terminal_obeys_is_refused(
    tmp_path: Path, bad: str, refused: Refused, taxonomy
) -> None:
    file = tmp_path / "mine.yaml"
    for classes, template in (({"car": [bad]}, "a {}."), ({}, f"a {{}}{bad}")):
        words = {name: [name] for name in taxonomy.names} | classes
        file.write_text(json.dumps({"templates": [template], "classes": words}))
        with refused(PromptsError, file, repr(bad)[1:-1], "control characters"):
            load_prompts(str(file), taxonomy)


@pytest.mark.parametrize("bad", [ESCAPE, "car\u202egnp.exe"], ids=["osc", "bidi"])
def test_a_taxonomy_has_no_name_that_a_terminal_obeys(bad: str) -> None:
    from pydantic import ValidationError

    from cache_schemas.taxonomy import Taxonomy, TaxonomyClass

    for make in (
        lambda: TaxonomyClass(name=bad, colour=(0, 0, 0)),
        lambda: Taxonomy(name=bad, classes=(TaxonomyClass(name="car", colour=(0, 0, 0)),)),
    ):
        with pytest.raises(ValidationError, match="control characters"):
            make()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_another_size_than_the_tables_say_is_not_decoded(damaged_folder: Path, refused: Refused) -> None:
    """Pillow itself would decode a picture of this size, half a gigabyte."""
    sample = NuScenes(damaged_folder).scenes("all", None)[0].samples[0]
    (damaged_folder / sample.cameras[0].image_path).write_bytes(jpeg_of(13_000, 13_000))
    with little_memory(), refused(SampleError, sample.cameras[0].image_path, "13000x13000 pixels, the tables say"):
        pictures.read_native_images(NuScenes(damaged_folder), sample)
