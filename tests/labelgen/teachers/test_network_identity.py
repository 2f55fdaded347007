"""Which network the settings name: seeds, digests and identities."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cache_schemas.errors import ConfigError
from labelgen import weights
from labelgen.errors import WeightsError
from labelgen.settings import ClipSettings, SamSettings
from labelgen.teachers.checkpoints import identify, read_state_dict, state_digest
from labelgen.teachers.clip.network import build_clip, normalise_images
from labelgen.teachers.sam.network import build_sam
from labelgen.weights import OPENAI_MEAN, OPENAI_STD, ShippedWeights, Weights

Refused = Callable[..., AbstractContextManager[None]]


def clip_settings(weights: str) -> ClipSettings:
    return ClipSettings(architecture="tiny-vit-16", weights=weights, mean=OPENAI_MEAN, std=OPENAI_STD)


def sam_settings(weights: str) -> SamSettings:
    return SamSettings(architecture="tiny", weights=weights)


BUILDERS = {
    "clip": lambda seed: build_clip(clip_settings(f"untrained:{seed}")),
    "sam": lambda seed: build_sam(sam_settings(f"untrained:{seed}")),
}


@pytest.mark.parametrize("teacher", ["clip", "sam"])
def test_a_seed_gives_the_same_network_whatever_torchs_own_seed_is(teacher: str) -> None:
    torch.manual_seed(1)
    first = state_digest(BUILDERS[teacher](3))
    torch.manual_seed(2)
    assert state_digest(BUILDERS[teacher](3)) == first
    assert state_digest(BUILDERS[teacher](4)) != first


@pytest.mark.parametrize("teacher", ["clip", "sam"])
def test_building_leaves_torchs_own_random_numbers_alone(teacher: str) -> None:
    torch.manual_seed(9)
    expected = torch.rand(5)
    torch.manual_seed(9)
    BUILDERS[teacher](0)
    assert torch.equal(torch.rand(5), expected)


def test_the_digest_follows_names_and_values() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    before = state_digest(model)
    assert state_digest(model) == before
    with torch.no_grad():
        model[1].bias += 1
    changed = state_digest(model)
    renamed = state_digest(torch.nn.Sequential(torch.nn.Identity(), *model))
    assert len({before, changed, renamed}) == 3


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5", "²"])
def test_a_seed_that_is_not_a_whole_number_is_refused(seed: str, refused: Refused) -> None:
    for use in (identify, build_clip):
        with refused(ConfigError, f"'untrained:{seed}'", "untrained:0"):
            use(clip_settings(f"untrained:{seed}"))


def test_untrained_weights_are_identified_by_their_seed() -> None:
    found = identify(sam_settings("untrained:12"))
    assert (found.architecture, found.weights, found.sha256) == ("tiny", "untrained:12", None)


def test_weights_files_are_identified_by_name_and_digest_without_being_loaded(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(b"never loaded")
    found = identify(clip_settings(str(path)))
    expected = ("tiny-vit-16", "mine.pth", hashlib.sha256(b"never loaded").hexdigest())
    assert (found.architecture, found.weights, found.sha256) == expected


def test_damaged_registered_weights_are_neither_identified_nor_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    torch.save({"bias": torch.zeros(2)}, tmp_path / "toy.pth")
    monkeypatch.setenv("LABELGEN_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(weights, "REGISTRY", {"toy": Weights("https://localhost/toy.pth", "0" * 64, "a toy")})
    for use in (lambda: identify(clip_settings("toy")), lambda: read_state_dict("toy")):
        with refused(WeightsError, tmp_path / "toy.pth", "0" * 64):
            use()


HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    """Weights of the user's own that fit tiny-vit-16."""
    state = {name: tensor.clone() for name, tensor in build_clip(clip_settings("untrained:5")).state_dict().items()}
    save_file(state, tmp_path / "own.safetensors")
    return tmp_path / "own.safetensors"


def test_a_file_of_the_users_own_must_state_the_range_of_pictures(own_file: Path, refused: Refused) -> None:
    unstated = ClipSettings(architecture="tiny-vit-16", weights=str(own_file))
    for settings in (unstated, unstated.model_copy(update={"mean": HALF})):
        with refused(ConfigError, own_file, "clip.mean and clip.std", "[0.5, 0.5, 0.5]", "-quickgelu"):
            identify(settings)
        with refused(ConfigError, own_file, "clip.mean and clip.std"):
            build_clip(settings)


def test_pictures_are_normalised_as_the_settings_say(own_file: Path) -> None:
    settings = ClipSettings(architecture="tiny-vit-16", weights=str(own_file), mean=HALF, std=HALF)
    white = torch.full((1, 16, 16, 3), 255, dtype=torch.uint8)
    assert torch.equal(normalise_images(build_clip(settings).visual, white), torch.ones(1, 3, 16, 16))
    assert not torch.equal(
        normalise_images(build_clip(clip_settings(str(own_file))).visual, white), torch.ones(1, 3, 16, 16)
    )


def test_registered_weights_know_their_architecture_and_range(
    own_file: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    sha256 = hashlib.sha256(own_file.read_bytes()).hexdigest()
    entry = ShippedWeights(own_file, sha256, "half", "tiny-vit-16", mean=HALF, std=HALF)
    monkeypatch.setattr(weights, "REGISTRY", {"half": entry})
    for name in ("half", str(own_file)):
        settings = ClipSettings(architecture="tiny-vit-16", weights=name)
        visual = build_clip(settings).visual
        assert (tuple(visual.image_mean), tuple(visual.image_std)) == (HALF, HALF)
        assert identify(settings).sha256 == sha256
    with refused(ConfigError, "half", "was trained with mean (0.5, 0.5, 0.5)"):
        identify(clip_settings("half"))
    with refused(ConfigError, "half", "'tiny-vit-16'", "not 'ViT-B-16'"):
        identify(ClipSettings(architecture="ViT-B-16", weights="half"))


def test_the_official_weights_name_networks_with_quickgelu() -> None:
    import open_clip

    for name in ("clip-vit-b-16", "clip-rn50"):
        entry = weights.REGISTRY[name]
        assert open_clip.get_model_config(entry.architecture)["quick_gelu"]
        assert (entry.mean, entry.std) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)


@pytest.mark.parametrize("architecture", ["coca_ViT-B-32", "coca_ViT-L-14"])
def test_coca_is_refused_before_it_is_built(architecture: str, refused: Refused) -> None:
    with refused(ConfigError, repr(architecture), "CoCa", "choose a CLIP network"):
        build_clip(ClipSettings(architecture=architecture, weights="untrained:0"))
