"""What happens next: images and actions in, latent states and their predictions out. Knows no replay, policy, goal."""

from fosp.world_model.loss import ModelScales, ahead_loss, model_loss
from fosp.world_model.model import ModelConfig, WorldModel
from fosp.world_model.rssm import Latent

__all__ = ["Latent", "ModelConfig", "ModelScales", "WorldModel", "ahead_loss", "model_loss"]
