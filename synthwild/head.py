"""Draws a head: projection, drawing primitives, body, skull and hair.

Points lie on an ellipsoid, are turned by the pose and scaled to pixels; every shape is an anti-aliased polygon, so
drawing costs what the shape covers and not what the canvas holds.
"""

import cv2
import numpy as np

from synthwild.people import Action, Array, Identity, Image, Pose, ellipse, mix

SHIFT = 4  # OpenCV's fixed-point bits: polygons are placed to a sixteenth of a pixel


class HeadPainter:
    """Draws a head without its features. One object per face and frame holds identity, action and pose."""

    def __init__(self, canvas: Image, who: Identity, action: Action, pose: Pose):
        self.canvas, self.who, self.do, self.pose = canvas, who, action, pose
        cy, sy = np.cos(pose.yaw), np.sin(pose.yaw)
        cp, sp = np.cos(pose.pitch), np.sin(pose.pitch)
        cr, sr = np.cos(pose.roll), np.sin(pose.roll)
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        self.roll = np.array([[cr, -sr], [sr, cr]]) * pose.scale
        self.turn = self.roll @ (pitch @ yaw)[:2]
        self.centre = np.array([pose.x, pose.y])
        self.dark = mix(who.skin * 0.42, np.array([20.0, 20.0, 60.0]), 0.25)

    # -- geometry and primitives -------------------------------------------------------------------------------------

    def on_face(self, points: Array, out: float = 0.0) -> Array:
        """Project points ``[N, 2]`` lying on the head's ellipsoid (lifted by ``out`` units) to pixels."""
        depth = 0.8 * np.sqrt(np.maximum(0.04, 1 - (points[:, 0] / 1.12) ** 2 - (points[:, 1] / 1.6) ** 2)) + out
        return np.column_stack([points, depth]) @ self.turn.T + self.centre

    def flat(self, points: Array) -> Array:
        """Project silhouette points, which roll and move with the head but do not turn."""
        shift = np.array([0.10 * np.sin(self.pose.yaw), -0.10 * np.sin(self.pose.pitch)])
        return (points + shift) @ self.roll.T + self.centre

    def fill(self, pixels: Array, colour: Array) -> None:
        """Fill a polygon given in pixels."""
        fixed = np.rint(pixels * (1 << SHIFT)).astype(np.int32)
        cv2.fillPoly(self.canvas, [fixed], colour.tolist(), cv2.LINE_AA, SHIFT)

    def stroke(self, pixels: Array, colour: Array, width: float) -> None:
        """Draw an open line given in pixels; its width is in face units, but at least one pixel."""
        fixed = np.rint(pixels * (1 << SHIFT)).astype(np.int32)
        thick = max(1, round(width * self.pose.scale))
        cv2.polylines(self.canvas, [fixed], False, colour.tolist(), thick, cv2.LINE_AA, SHIFT)

    def wrinkle(self, points: list[tuple[float, float]] | Array, strength: float, width: float = 0.028) -> None:
        """Draw a skin fold as dark as its ``strength``; faint ones are not drawn."""
        if strength > 0.08:
            colour = mix(self.who.skin, self.dark, 0.15 + 0.75 * strength)
            self.stroke(self.on_face(np.asarray(points, float)), colour, width)

    # -- the head ----------------------------------------------------------------------------------------------------

    def outline(self, grow: float = 1.0) -> Array:
        """Face silhouette ``[40, 2]``; the chin follows the jaw (AU26)."""
        t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        c, s = np.cos(t), np.sin(t)
        chin = self.who.chin + 0.20 * self.do["AU26"] + 0.03 * self.do["AU25"]
        lower = s > 0
        x = self.who.width * np.sign(c) * np.where(lower, np.abs(c) ** self.who.jaw, np.abs(c) ** 0.9)
        x = np.where(lower, x * (1 - 0.16 * s), x)
        y = np.where(lower, s * chin, s * 1.22)
        return np.stack([x, y], 1) * grow

    def body(self) -> None:
        """Neck and shoulders, which do not follow the head's roll."""
        s, base = self.pose.scale, self.centre
        neck = np.array([[-0.42, 0.5], [0.42, 0.5], [0.5, 1.9], [-0.5, 1.9]]) * s + base
        self.fill(neck, self.who.skin * 0.72)
        slope = np.array([[-0.55, 1.62], [0, 1.78], [0.55, 1.62], [1.7, 2.0], [2.1, 4.5], [-2.1, 4.5], [-1.7, 2.0]])
        self.fill(slope * s + base, self.who.cloth)

    def back_hair(self) -> None:
        """The hair behind the face."""
        w, style, colour = self.who.width, self.who.hair_style, self.who.hair * 0.85
        if style == "long":
            fall = [[-1.12 * w, -0.5], [1.12 * w, -0.5], [1.3 * w, 1.5], [0.7, 1.75], [-0.7, 1.75], [-1.3 * w, 1.5]]
            self.fill(self.flat(np.array(fall)), colour)
        if style == "bun":
            self.fill(self.flat(ellipse(0.1, -1.5, 0.45, 0.4)), colour)
        if style == "curly":
            top = [(-1.0, -0.6), (-0.75, -1.1), (-0.25, -1.35), (0.3, -1.35), (0.78, -1.08), (1.0, -0.55)]
            for x, y in [*top, (-1.08, -0.05), (1.08, -0.05)]:
                self.fill(self.flat(ellipse(x * w, y, 0.36, 0.36, 14)), colour)
        if style != "bald":
            self.fill(self.flat(ellipse(0, -0.32, 1.08 * w, 1.1)), colour)

    def skull(self) -> None:
        """Ears and the shaded face, blurred at the end so that the shading looks round."""
        who, skin = self.who, self.who.skin
        side = np.sin(self.pose.yaw)
        for sign in (-1, 1):
            if sign * side < 0.35:
                ear = ellipse(sign * 1.0 * who.width - 0.12 * side, 0.08, 0.13, 0.25, 14)
                self.fill(self.flat(ear), skin * 0.82)
        edge = self.flat(self.outline())
        self.fill(edge, skin * 0.74)
        for grow, tone in ((0.93, 0.88), (0.84, 0.96), (0.66, 1.03)):
            self.fill(self.flat(self.outline(grow)), np.minimum(skin * tone, 255))
        if who.beard:
            self.beard()
        if who.hair_style != "bald":
            self.front_hair()
        self.soften(edge, 0.11)

    def soften(self, pixels: Array, amount: float) -> None:
        """Blur the box around ``pixels`` with a kernel of ``amount`` face units."""
        height, width = self.canvas.shape[:2]
        x0, y0 = np.maximum(np.floor(pixels.min(0)).astype(int) - 4, 0)
        x1, y1 = np.minimum(np.ceil(pixels.max(0)).astype(int) + 4, (width, height))
        size = 2 * int(amount * self.pose.scale / 2) + 1
        if x1 - x0 > size and y1 - y0 > size > 1:
            self.canvas[y0:y1, x0:x1] = cv2.blur(self.canvas[y0:y1, x0:x1], (size, size))

    def front_hair(self) -> None:
        """The hair that falls over the forehead, down to the hairline; a cap covers it."""
        who = self.who
        line = np.linspace(-1, 1, 9)
        drop = {"fringe": 0.16, "curly": 0.04}.get(who.hair_style, 0.0)
        low = np.stack([line * 0.92 * who.width, who.hairline + drop + 0.42 * np.abs(line) ** 3], 1)
        t = np.linspace(0, -np.pi, 14)
        top = np.stack([1.06 * who.width * np.cos(t), -0.36 + 1.06 * np.sin(t)], 1)
        both = np.concatenate([self.on_face(low), self.flat(top)])
        self.fill(both, who.cloth * 0.9 if who.hair_style == "cap" else who.hair)
        if who.hair_style == "cap":
            brim = np.stack([line * 0.98 * who.width, who.hairline + 0.14 + 0.2 * np.abs(line) ** 2], 1)
            self.fill(np.concatenate([self.on_face(brim, 0.25), self.on_face(low[::-1])]), who.cloth * 0.6)

    def beard(self) -> None:
        """Jaw and chin hair; the mouth is drawn over it."""
        outer = self.outline(0.99)
        keep = outer[(outer[:, 1] > 0.30)]
        order = np.argsort(np.arctan2(keep[:, 0], keep[:, 1]))
        inner = np.array([[0.72, 0.35], [0.55, 0.62], [0.2, 0.56], [-0.2, 0.56], [-0.55, 0.62], [-0.72, 0.35]])
        pixels = np.concatenate([self.flat(keep[order]), self.on_face(inner)])
        self.fill(pixels, mix(self.who.skin, self.who.hair, self.who.beard))
