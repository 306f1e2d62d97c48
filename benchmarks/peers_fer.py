"""Runs the net of the package `fer` on crops, in that package's own environment: `peers.py` starts it.

    python peers_fer.py CROPS SIDE ANSWERS

Its Haar detector is left out. Its preparation of a face is not: grey, 64 px, -1 to 1.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from fer.fer import FER

crops, side, answers = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
faces = np.fromfile(crops, np.uint8).reshape(-1, side, side, 3)
net = FER()
grey = np.stack([cv2.resize(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), (64, 64)) for face in faces])
# The public method rounds to two digits, which makes ties.
values = net._classify_emotions((grey.astype(np.float32) / 255 - 0.5) * 2)
names = [name for _, name in sorted(net._get_labels().items())]
answers.write_text(json.dumps({"classes": names, "probabilities": np.asarray(values).tolist()}))
