"""MTCNN (Zhang et al. 2016, arXiv:1604.02878), the face detector.

Importing this module loads facenet-pytorch. If that or a package it needs is not installed, the import raises a
UserError that names the package and the command to install it.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torchvision.ops import batched_nms

from checkpoints.errors import UserError
from preprocessing.detect import Faces, distinct, place, regress, square

INSTALL = "pip install 'facenet-pytorch<2.6'"

try:
    from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
except ImportError as error:
    raise UserError(f"face detection cannot be loaded ({error}): {INSTALL}") from None


class MTCNN:
    """The networks of facenet-pytorch's MTCNN in a cascade that takes pictures in batches.

    It finds the faces that `facenet_pytorch.MTCNN(keep_all=True).detect` finds, several times faster on a CPU (channels
    last, pictures resized before they become floats), and copes with pictures without any candidate.

    Args:
        device: Where the networks run.

    Raises:
        UserError: There is no such device.
    """

    # Smallest face looked for, in pixels and as a part of the shorter side: in a large picture small faces are not
    # searched, which bounds the cost of a frame whatever its resolution. The larger of the two limits holds.
    min_face_size, relative_face_size = 20, 0.05
    thresholds = (0.6, 0.7, 0.7)
    factor = 0.709
    batch = 64  # beyond it the crops leave the cache and every one takes longer

    def __init__(self, device: str = "cpu"):
        check_device(device)
        self.device = torch.device(device)
        self.pnet, self.rnet, self.onet = (
            net().eval().to(self.device, memory_format=torch.channels_last) for net in (PNet, RNet, ONet)
        )

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
        """Find all faces of each picture."""
        found = [Faces.none()] * len(images)
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(index)
        for indices in by_shape.values():
            for index, faces in zip(indices, self._cascade([images[i] for i in indices]), strict=True):
                found[index] = faces
        return found

    def refine(self, images: Sequence[np.ndarray], boxes: np.ndarray) -> Faces:
        """Run the cascade's last two networks on given boxes instead of the first one's candidates."""
        boxes = square(np.asarray(boxes, dtype=np.float32))
        certain, shift = self._run(self.rnet, images, boxes, 24)
        boxes = square(regress(boxes, shift))
        score, shift, points = self._run(self.onet, images, boxes, 48)
        score = np.where(certain > 0.1, score, 0).astype(np.float32)  # what one network rules out the next may not keep
        return self._settle(images, Faces(regress(boxes, shift), place(boxes, points), score))

    def _cascade(self, images: list[np.ndarray]) -> list[Faces]:
        """All faces of pictures of one size."""
        boxes, owner = self._candidates(images)

        score, shift = self._run(self.rnet, [images[i] for i in owner], boxes, 24)
        keep = score > self.thresholds[1]
        boxes, owner, score, shift = boxes[keep], owner[keep], score[keep], shift[keep]
        keep = nms(boxes, score, owner, 0.7)
        boxes, owner = square(regress(boxes[keep], shift[keep])), owner[keep]

        score, shift, points = self._run(self.onet, [images[i] for i in owner], boxes, 48)
        keep = score > self.thresholds[2]
        faces, owner = Faces(regress(boxes, shift), place(boxes, points), score)[keep], owner[keep]
        found = [distinct(faces[owner == i], 0.7) for i in range(len(images))]
        owner = np.repeat(np.arange(len(images)), [len(faces) for faces in found])
        faces = self._settle([images[i] for i in owner], Faces.join(found))
        return [faces[owner == i] for i in range(len(images))]

    def _settle(self, images: Sequence[np.ndarray], faces: Faces) -> Faces:
        """Ask the third network again, about its own answer, and take the mean of both answers.

        Its landmarks depend on how the crop happens to lie; the mean is steadier from frame to frame than either.
        """
        boxes = square(faces.boxes)
        _, shift, points = self._run(self.onet, images, boxes, 48)
        return Faces(
            (faces.boxes + regress(boxes, shift)) / 2, (faces.landmarks + place(boxes, points)) / 2, faces.scores
        )

    def _candidates(self, images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Square candidate boxes [N, 4] and the number of the picture each is in [N], from the picture pyramid."""
        height, width = images[0].shape[:2]
        smallest = max(self.min_face_size, self.relative_face_size * min(height, width))
        scale = 12 / smallest
        boxes, scores, owners = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
        while min(height, width) * scale >= 12:
            size = (int(width * scale + 1), int(height * scale + 1))
            level = np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images])
            with torch.inference_mode():
                parts = [self.pnet(self._input(level[part])) for part in pieces(len(level), 16)]
            shift = np.concatenate([part.cpu().numpy() for part, _ in parts])
            score = np.concatenate([part[:, 1].cpu().numpy() for _, part in parts])
            owner, y, x = np.nonzero(score >= self.thresholds[0])
            corner = np.stack([x, y], 1)
            # A cell of the output sees 12 x 12 pixels of the level, two pixels from its neighbour.
            cell = np.floor(np.concatenate([2 * corner + 1, 2 * corner + 12], 1) / scale).astype(np.float32)
            keep = nms(cell, score[owner, y, x], owner, 0.5)
            owner, y, x, cell = owner[keep], y[keep], x[keep], cell[keep]
            side = cell[:, 2:] - cell[:, :2]
            boxes.append(cell + shift[owner, :, y, x] * np.concatenate([side, side], 1))
            scores.append(score[owner, y, x])
            owners.append(owner)
            scale *= self.factor
        box, score, owner = np.concatenate(boxes), np.concatenate(scores), np.concatenate(owners)
        keep = nms(box, score, owner, 0.7)
        return square(box[keep]), owner[keep]

    def _run(
        self, net: torch.nn.Module, images: Sequence[np.ndarray], boxes: np.ndarray, side: int
    ) -> tuple[np.ndarray, ...]:
        """Run a network on one crop per picture: score [N], box regression [N, 4] and, of the O-Net, points [N, 10]."""
        crops = np.zeros((len(boxes), side, side, 3), np.uint8)
        for crop, image, box in zip(crops, images, boxes, strict=True):
            cv2.resize(_cut(image, box), (side, side), dst=crop, interpolation=cv2.INTER_AREA)
        outputs = []
        with torch.inference_mode():
            for piece in pieces(len(crops), self.batch):
                shift, *points, probability = net(self._input(crops[piece]))
                outputs.append([part.cpu().numpy() for part in (probability[:, 1], shift, *points)])
        if not outputs:
            empty = (np.zeros(0, np.float32), np.zeros((0, 4), np.float32), np.zeros((0, 10), np.float32))
            return empty if net is self.onet else empty[:2]
        return tuple(np.concatenate(parts) for parts in zip(*outputs, strict=True))

    def _input(self, pictures: np.ndarray) -> torch.Tensor:
        """Pictures [N, H, W, 3] as the networks expect them; the memory stays in the order of the pictures."""
        return (torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2).float() - 127.5) * 0.0078125


def check_device(device: str) -> None:
    """Check that tensors can be put on a device.

    Raises:
        UserError: There is no such device.
    """
    try:
        torch.zeros(1, device=device).cpu()  # refused by devices that compute nothing
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device} cannot be used: {str(error).splitlines()[0]}") from None


def _cut(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The part of a picture in a box, black beyond the picture's border."""
    height, width = image.shape[:2]
    x1, y1 = (int(value) - 1 for value in box[:2])
    x2, y2 = max(int(box[2]), x1 + 1), max(int(box[3]), y1 + 1)
    part = image[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
    if not part.size:
        return np.zeros((1, 1, 3), np.uint8)
    left, top, right, bottom = max(-x1, 0), max(-y1, 0), max(x2 - width, 0), max(y2 - height, 0)
    if left or top or right or bottom:
        return cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_CONSTANT)
    return part


def pieces(count: int, most: int) -> Iterator[slice]:
    """Parts of a batch whose sizes are powers of two up to `most`: 37 is 32 + 4 + 1.

    Convolutions are prepared once per batch size, and what is prepared stays in memory: few sizes, few preparations.
    """
    start = 0
    while start < count:
        size = min(most, 1 << ((count - start).bit_length() - 1))
        yield slice(start, start + size)
        start += size


def nms(boxes: np.ndarray, scores: np.ndarray, owner: np.ndarray, threshold: float) -> np.ndarray:
    """Non-maximum suppression within each picture; indices kept, best first."""
    return batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(owner), threshold).numpy()
