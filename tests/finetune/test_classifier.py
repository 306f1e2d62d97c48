"""The network of stage 2."""

import torch

from checkpoints.network import Encoder, EncoderConfig
from finetune.classifier import Classifier

SMALL = EncoderConfig("resnet18", 32, kwargs={"channels": [8, 8, 8, 8], "in_chans": 1}, pooling="model")


def test_action_units_of_other_pictures_leave_the_statistics_of_faces_alone():
    for units, width in ((False, 8), (True, 20)):
        model = Classifier(Encoder(SMALL, provenance={}), units=units).train()
        before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
        assert model(torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)).shape == (4, width)
        kept = all(torch.equal(value, before[name]) for name, value in model.named_buffers() if "running" in name)
        assert before and kept is units
