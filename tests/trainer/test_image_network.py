"""The 2D networks: the shape of their features, and loading the weights of a backbone."""

import hashlib
import json

import pytest
import torch

from tests.trainer.runs import overrides, run_cli
from trainer.errors import TrainerError
from trainer.networks import imagenet
from trainer.networks.image import BUILDERS, build_image_network, load_backbone
from trainer.settings import load_settings


@pytest.mark.parametrize("name", BUILDERS)
def test_image_networks_give_features_on_a_grid(name: str) -> None:
    network = build_image_network(name, None).eval()
    stride = 16 if name == "deeplabv3-mobilenet" else 8
    rgb = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        found = network(rgb)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(rgb)
    assert found.shape == (2, network.channels, 64 // stride, 96 // stride)
    assert rough.shape == found.shape and rough.isfinite().all()


@pytest.mark.parametrize("name", BUILDERS)
def test_a_single_image_is_trained_on(name: str) -> None:
    """stream.images=1 with one sample in a step; the pooled features of DeepLab are then one value of each channel."""
    network = build_image_network(name, None)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = network(torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8))
    found.square().sum().backward()
    assert found.isfinite().all() and all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    pooled = "body.classifier.0.convs.4.2."
    for key, value in network.state_dict().items():
        assert not key.startswith(pooled) or torch.equal(value, before[key]), "one value has no statistics"


def test_backbone_weights_load_as_torchvision_names_them(tmp_path) -> None:
    from torchvision.models import resnet50

    state = resnet50(weights=None).state_dict()
    torch.save(state, tmp_path / "resnet50.pth")
    network = build_image_network("deeplabv3-resnet50", tmp_path / "resnet50.pth")
    torch.testing.assert_close(network.body.backbone.layer4[2].conv3.weight, state["layer4.2.conv3.weight"])
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(TrainerError, match=r"short\.pth: 1 of \d+ tensors are missing, such as layer1"):
        load_backbone(network, tmp_path / "short.pth")


def test_pickled_weights_do_not_run(tmp_path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (print, ("run",))

    torch.save({"w": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(TrainerError, match=r"evil\.pth"):
        build_image_network("deeplabv3-mobilenet", tmp_path / "evil.pth")


# ImageNet weights


def test_the_papers_recipe_starts_from_imagenet() -> None:
    assert load_settings("nuscenes").networks.image_weights == imagenet.IMAGENET
    assert imagenet.imagenet_file("deeplabv3-resnet50").name == "resnet50-0676ba61.pth"


def test_imagenet_weights_are_loaded_if_they_are_the_official_bytes(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import mobilenet_v3_large

    monkeypatch.setenv("LABELGEN_WEIGHTS", str(tmp_path))
    state = mobilenet_v3_large(weights=None).state_dict()
    torch.save(state, tmp_path / "own.pth")
    digest = hashlib.sha256((tmp_path / "own.pth").read_bytes()).hexdigest()
    official = (tmp_path / "own.pth").rename(tmp_path / f"mobilenet-{digest[:8]}.pth")
    monkeypatch.setattr(imagenet, "imagenet_url", lambda network: f"https://example.org/{official.name}")
    network = build_image_network("deeplabv3-mobilenet", imagenet.IMAGENET)
    torch.testing.assert_close(network.body.backbone["0"][0].weight, state["features.0.0.weight"])
    official.write_bytes(official.read_bytes()[:-1])
    with pytest.raises(TrainerError, match=r"not the official weights, .*`trainer fetch-weights`"):
        build_image_network("deeplabv3-mobilenet", imagenet.IMAGENET)


def test_absent_imagenet_weights_are_said_in_the_log_and_in_the_record(
    toy: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELGEN_WEIGHTS", str(tmp_path / "weights"))
    words = overrides("networks.image=deeplabv3-mobilenet", "networks.image_weights=imagenet", "optimiser.epochs=1")
    done = run_cli("fit", toy, "--out", tmp_path / "run", *words, "--set", "stream.batch_samples=4")
    (line,) = [line for line in done.stderr.splitlines() if "starts from noise" in line]
    assert "mobilenet_v3_large-8738ca79.pth" in line and "`trainer fetch-weights deeplabv3-mobilenet`" in line
    assert json.loads((tmp_path / "run/run.json").read_text())["absent_weights"] == line
