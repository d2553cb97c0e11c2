"""Pictures of a trained model: drawing them, super-resolving and editing. No training code is imported here."""
