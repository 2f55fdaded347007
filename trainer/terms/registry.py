"""Which terms of the loss a run has."""

from collections.abc import Mapping

from torch import nn

from trainer.data.class_weights import ClassWeights
from trainer.method_settings import TermSettings
from trainer.networks.model import SceneNetworks
from trainer.terms.distillation import DistillationTerm
from trainer.terms.latent import LatentTerm
from trainer.terms.multiscale_kl import MultiscaleKlTerm
from trainer.terms.semantic import SemanticTerm
from trainer.terms.spatial_temporal import SpatialTemporalTerm


def build_terms(
    settings: TermSettings, networks: SceneNetworks, widths: Mapping[str, int], weights: ClassWeights | None
) -> nn.ModuleDict:
    """Return the terms whose weight is not 0, by the name of their settings.

    Args:
        settings: of all terms.
        networks: those that the terms train.
        widths: by teacher, the number of channels of its frozen features.
        weights: of the classes in cross-entropies; None: all elements count alike.
    """
    terms = nn.ModuleDict()
    if settings.semantic.weight:
        terms["semantic"] = SemanticTerm(weights)
    if settings.latent.weight:
        terms["latent"] = LatentTerm(settings.latent, networks, widths)
    if settings.distillation.weight:
        terms["distillation"] = DistillationTerm()
    if settings.spatial_temporal.weight:
        terms["spatial_temporal"] = SpatialTemporalTerm(networks)
    if settings.multiscale_kl.weight:
        terms["multiscale_kl"] = MultiscaleKlTerm(networks)
    return terms
