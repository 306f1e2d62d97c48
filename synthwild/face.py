"""Draws the features of a face; each of the twelve action units visibly changes them in its own way."""

import numpy as np

from synthwild.head import HeadPainter
from synthwild.people import Action, Array, Identity, Image, Landmarks, Pose, ellipse, mix


class FacePainter(HeadPainter):
    """Draws one face onto one BGR canvas."""

    # -- the upper face ----------------------------------------------------------------------------------------------

    def forehead(self) -> None:
        """Wrinkles of raised brows (AU1 in the middle, AU2 above the tails) and of lowered ones (AU4)."""
        au1, au2, au4, age = self.do["AU1"], self.do["AU2"], self.do["AU4"], self.who.age
        rest = 0.25 * max(age - 0.4, 0)
        for y in (-0.60, -0.69):
            self.wrinkle([(-0.24, y + 0.02), (-0.1, y - 0.015), (0.1, y - 0.015), (0.24, y + 0.02)], 0.9 * au1 + rest)
            for sign in (-1, 1):
                arc = [(sign * 0.34, y), (sign * 0.48, y - 0.045), (sign * 0.64, y + 0.03)]
                self.wrinkle(arc, 0.9 * au2 + rest)
        for sign in (-1, 1):
            x = sign * (0.085 - 0.015 * au4)
            self.wrinkle([(x * 1.35, -0.50), (x, -0.36), (x * 1.1, -0.25)], 1.1 * au4 + rest, 0.036)
        self.wrinkle([(-0.11, -0.17), (0.0, -0.20), (0.11, -0.17)], 0.7 * au4 + self.do["AU9"], 0.03)

    def brow(self, sign: int) -> None:
        """One brow: AU1 lifts the inner end, AU2 the outer half, AU4 pulls all of it down and inwards."""
        who, au1, au2, au4 = self.who, self.do["AU1"], self.do["AU2"], self.do["AU4"]
        u = np.linspace(0, 1, 7)  # inner end to tail
        inner, tail = (1 - u) ** 1.5, u**1.2
        x = 0.15 - 0.055 * au4 * inner + u * (0.52 + 0.02 * au2)
        arch = -0.075 * np.sin(np.pi * np.minimum(u * 0.95 + 0.08, 1))
        y = who.brow_height + who.brow_tilt * (u - 0.5) + arch
        y = y - 0.17 * au1 * inner - 0.19 * au2 * (tail + 0.25 * np.sin(np.pi * u)) + au4 * (0.13 * inner + 0.055)
        y = y + 0.05 * self.do["AU9"] * inner
        half = who.brow_thick / 2 * np.sqrt(np.clip(1.15 - u, 0.05, 1))
        upper, lower = np.stack([sign * x, y - half], 1), np.stack([sign * x, y + half], 1)[::-1]
        colour = mix(who.hair * 0.8, who.skin, 0.12)
        self.fill(self.on_face(np.concatenate([upper, lower])), colour)

    def eye(self, sign: int) -> None:
        """One eye: AU5 opens it, AU7 tightens both lids, AU6 pushes the lower lid up, AU43 closes it."""
        who, do = self.who, self.do
        cx, cy, half = sign * who.eye_gap, -0.02, who.eye_size
        au6, au7, shut = do["AU6"], do["AU7"], min(do["AU43"], 1.0)
        up = 0.105 * (
            1 + 0.65 * do["AU5"] + 0.18 * do["AU2"] - 0.42 * au7 - 0.12 * au6 - 0.12 * do["AU4"] - 0.2 * do["AU9"]
        )
        low = 0.066 * (1 + 0.25 * do["AU5"] - 0.95 * au7 - 0.55 * au6)
        up, low = up * (1 - 1.25 * shut), low * (1 - 0.6 * shut)
        u = np.linspace(-1, 1, 9)
        slant = who.eye_tilt * u * sign * -1
        lid_up = cy + slant - up * (1 - np.abs(u) ** 2.2)
        lid_low = np.maximum(cy + slant + low * (1 - u**2), lid_up + 0.004)
        x = cx + half * u
        top, bottom = np.stack([x, lid_up], 1), np.stack([x, lid_low], 1)
        # the socket: a soft shade that shows the eye's shape even when it is nearly closed
        self.fill(self.on_face(ellipse(cx, cy - 0.03, half * 1.25, 0.17, 14)), who.skin * 0.9)
        white = np.array([228.0, 232.0, 236.0]) * (0.8 + 0.2 * who.skin.mean() / 255)
        self.fill(self.on_face(np.concatenate([top, bottom[::-1]])), white)
        if up + low > 0.03:
            at_x, at_y = cx + do.gaze[0] * half * 0.5, cy - 0.015 + do.gaze[1] * 0.05
            iris, pupil = (ellipse(at_x, at_y, radius, radius, 16) for radius in (0.098, 0.048))
            glint = ellipse(at_x - 0.035, cy - 0.04, 0.022, 0.022, 8)
            for disc, colour in ((iris, who.iris), (pupil, np.array([14.0, 12.0, 12.0])), (glint, np.full(3, 250.0))):
                disc[:, 1] = np.clip(disc[:, 1], np.interp(disc[:, 0], x, lid_up), np.interp(disc[:, 0], x, lid_low))
                self.fill(self.on_face(disc), colour)
        ink = mix(who.skin * 0.25, np.array([15.0, 12.0, 14.0]), 0.6)
        self.stroke(self.on_face(top), ink, 0.042)
        self.stroke(self.on_face(bottom), mix(who.skin, ink, 0.35 + 0.4 * au7), 0.024)
        crease = np.stack([x, lid_up - 0.055 + 0.03 * au7], 1)[1:-1]
        self.wrinkle(crease, 0.45 - 0.2 * do["AU5"], 0.02)
        # AU7: the tightened lower lid stands out as a short straight bulge under the eye
        bulge = np.stack([cx + half * np.array([-0.7, 0.0, 0.7]), cy + np.array([0.075, 0.092, 0.075])], 1)
        self.wrinkle(bulge, 1.1 * au7, 0.03)

    def cheek(self, sign: int) -> None:
        """AU6 raises the cheek, folds the skin under the eye and makes crow's feet at the corner."""
        who, au6, au12 = self.who, self.do["AU6"], self.do["AU12"]
        cx, corner = sign * who.eye_gap, sign * (who.eye_gap + who.eye_size + 0.04)
        if au6 > 0.08:
            ball = ellipse(cx + sign * 0.06, 0.34 - 0.05 * au6, 0.24, 0.15, 16)
            self.fill(self.on_face(ball), mix(who.skin, np.array([130.0, 130.0, 255.0]), 0.22 * au6))
            self.soften(self.on_face(ball), 0.16)
        fold = [(cx + sign * x, y) for x, y in ((-0.17, 0.125), (0, 0.165 - 0.015 * au6), (0.17, 0.12), (0.27, 0.06))]
        self.wrinkle(fold, au6, 0.032)
        for y, reach in ((-0.10, -0.09), (-0.02, 0.0), (0.06, 0.08)):
            feet = [(corner + sign * 0.01, y * 0.6 - 0.015), (corner + sign * 0.15, y + reach * 0.4)]
            self.wrinkle(feet, 1.05 * au6 + 0.15 * max(who.age - 0.5, 0), 0.028)
        for x, y in who.freckles[: 3 if sign < 0 else None]:
            if np.sign(x) == sign:
                self.fill(self.on_face(ellipse(x, y, 0.022, 0.022, 6)), mix(who.skin, self.dark, 0.5))
        if au12 > 0.1:  # the cheek fold of a smile, round the corner of the mouth
            c = sign * (who.mouth_width + 0.14 + 0.05 * au12)
            fold = [(sign * 0.27, 0.42), (c - sign * 0.03, 0.55), (c + sign * 0.015, 0.68), (c - sign * 0.01, 0.80)]
            self.wrinkle(fold, 0.85 * au12, 0.03)

    def nose(self) -> None:
        """Bridge, tip, wings and nostrils; AU9 wrinkles it, AU10 pulls the wings up."""
        who, up = self.who, 0.035 * self.do["AU10"] + 0.05 * self.do["AU9"]
        w, y = who.nose_width, who.nose_length
        shade, light = mix(who.skin, self.dark, 0.28), np.minimum(who.skin * 1.1, 255)
        bridge = np.array([[0.05, -0.12], [0.085, 0.1], [w * 0.85, y - 0.08 - up], [0.02, y - 0.04]])
        side = 1 if self.pose.yaw >= 0 else -1
        self.fill(self.on_face(bridge * [side, 1], 0.16), mix(who.skin, self.dark, 0.12))
        self.fill(self.on_face(ellipse(0, y - 0.07, 0.085, 0.07, 12), 0.22), light)
        for sign in (-1, 1):
            hole = ellipse(sign * w * 0.48, y + 0.015 - up * 0.6, w * 0.27, 0.03, 10)
            self.fill(self.on_face(hole, 0.14), self.dark * 0.75)
            wing = np.array([[w * 0.9, y - 0.11 - up], [w * 1.08, y - 0.03 - up], [w * 0.9, y + 0.03 - up]])
            self.stroke(self.on_face(wing * [sign, 1], 0.1), shade, 0.03)
            for k in range(2):
                line = [(sign * 0.06, -0.05 + 0.09 * k), (sign * 0.17, 0.0 + 0.09 * k)]
                self.wrinkle(line, self.do["AU9"], 0.026)

    # -- the lower face ----------------------------------------------------------------------------------------------

    def mouth(self) -> Array:
        """Lips, teeth and the folds around them; returns both corners ``[2, 2]`` in face coordinates."""
        who, do = self.who, self.do
        au10, au12, au15, au23, au24, au25, au26 = (
            do[a] for a in ("AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")
        )
        half = who.mouth_width * (
            1 + 0.20 * au12 + 0.16 * do["AU20"] - 0.16 * au23 - 0.05 * au24 - 0.30 * do.rounding - 0.08 * au26
        )
        u = np.linspace(-1, 1, 13)
        bow = 1 - u**2
        middle = 0.80 - 0.015 * au10 + 0.03 * au24
        lift = who.mouth_curve + 0.17 * au12 - 0.17 * au15
        curve = middle - lift * np.abs(u) ** 1.8 + 0.05 * au12 * bow
        gap_up = (0.022 * au25 + 0.045 * au10 + 0.02 * au26) * np.sqrt(bow)
        gap_low = (0.055 * au25 + 0.24 * au26 + 0.02 * do["AU20"]) * np.sqrt(bow) * (1 - 0.1 * au12)
        thin = (1 - 0.50 * au23) * (1 - 0.88 * au24)
        thick = who.lip_thick * thin * (1 + 0.25 * do.rounding)
        peak = bow**0.8 * (1 - 0.22 * np.exp(-((u / 0.16) ** 2)))  # cupid's bow
        square = 0.055 * au10 * np.clip(1.6 * bow, 0, 1)  # AU10 lifts the whole upper lip squarely
        top_out, top_in = curve - gap_up - thick * 0.85 * peak - square, curve - gap_up - square * 0.75
        low_in, low_out = curve + gap_low, curve + gap_low + thick * 1.15 * bow**0.7
        x = half * u

        def band(a: Array, b: Array) -> Array:
            return self.on_face(np.concatenate([np.stack([x, a], 1), np.stack([x, b], 1)[::-1]]), 0.04)

        if who.moustache:
            hair = mix(who.skin, who.hair, who.moustache)
            self.fill(band(top_out - 0.10 * (bow + 0.25), top_out + 0.02), hair)
        opening = float((low_in - top_in).max())
        if opening > 0.03:
            self.fill(band(top_in, low_in), np.array([35.0, 20.0, 60.0]))
            teeth = np.minimum(top_in + 0.075 + 0.04 * au10, low_in)
            self.fill(band(top_in, teeth), np.array([225.0, 230.0, 235.0]))
            if opening > 0.2:
                self.fill(band(np.maximum(low_in - 0.09 * bow, top_in), low_in), np.array([95.0, 85.0, 170.0]))
        self.fill(band(top_out, top_in), who.lips * 0.92)
        self.fill(band(low_in, low_out), who.lips)
        seam = mix(who.lips * 0.4, self.dark, 0.4 + 0.4 * au24)
        self.stroke(self.on_face(np.stack([x, top_in], 1), 0.04), seam, 0.028 + 0.016 * au24)
        if opening > 0.03:
            self.stroke(self.on_face(np.stack([x, low_in], 1), 0.04), seam, 0.02)
        corners = np.array([[-half, curve[0]], [half, curve[-1]]])
        self.mouth_folds(corners, float(low_out.max()))
        return corners

    def mouth_folds(self, corners: Array, lowest: float) -> None:
        """Folds: AU10 beside the nose, AU15 below the corners, AU23 round the lips, AU24 beside and below them."""
        who, do = self.who, self.do
        for (cx, cy), sign in zip(corners, (-1, 1), strict=True):
            w = who.nose_width
            fold = [(sign * (w + 0.05), 0.27), (sign * (w + 0.15), 0.42), (sign * (w + 0.22), 0.62)]
            self.wrinkle(fold, 1.1 * do["AU10"] + 0.35 * max(who.age - 0.3, 0), 0.036)
            down = [(cx + sign * 0.03, cy - 0.01), (cx + sign * 0.075, cy + 0.10), (cx + sign * 0.05, cy + 0.22)]
            self.wrinkle(down, do["AU15"], 0.034)
            dimple = [(cx + sign * 0.05, cy - 0.09), (cx + sign * 0.085, cy), (cx + sign * 0.05, cy + 0.09)]
            self.wrinkle(dimple, 1.1 * do["AU24"], 0.034)
        for x in (-0.2, -0.1, 0.0, 0.1, 0.2):
            tight = do["AU23"]
            self.wrinkle([(x * 1.15, 0.80 - 0.14), (x, 0.80 - 0.08)], 0.9 * tight, 0.022)
            self.wrinkle([(x, lowest + 0.02), (x * 1.15, lowest + 0.08)], 0.9 * tight, 0.022)
        pressed, y = do["AU24"], lowest + 0.11
        self.wrinkle([(-0.19, y + 0.05), (-0.1, y), (0.1, y), (0.19, y + 0.05)], 1.0 * pressed, 0.034)
        rest = lowest + 0.07
        self.wrinkle([(-0.12, rest), (0.0, rest + 0.02), (0.12, rest)], 0.3 * (1 - pressed), 0.03)

    def spectacles(self) -> None:
        """Glasses, drawn last."""
        who, frame = self.who, self.who.hair * 0.5
        power = 2 if who.glasses == "round" else 4
        t = np.linspace(0, 2 * np.pi, 25)
        c, s = np.cos(t), np.sin(t)
        for sign in (-1, 1):
            rim = np.stack(
                [np.sign(c) * np.abs(c) ** (2 / power) * 0.30, np.sign(s) * np.abs(s) ** (2 / power) * 0.23], 1
            )
            self.stroke(self.on_face(rim + np.array([sign * who.eye_gap, 0.02]), 0.1), frame, 0.035)
            temple = np.array([[sign * (who.eye_gap + 0.3), 0.0], [sign * 0.98, -0.06]])
            self.stroke(self.on_face(temple, 0.05), frame, 0.035)
        gap = who.eye_gap - 0.3
        self.stroke(self.on_face(np.array([[-gap, 0.0], [0, -0.03], [gap, 0.0]]), 0.15), frame, 0.035)

    def paint(self) -> Landmarks:
        """Draw everything from back to front and return the true landmarks."""
        self.body()
        self.back_hair()
        self.skull()
        self.forehead()
        for sign in (-1, 1):
            self.cheek(sign)
            self.eye(sign)
            self.brow(sign)
        self.nose()
        corners = self.mouth()
        if self.who.glasses:
            self.spectacles()
        eyes = self.on_face(np.array([[-self.who.eye_gap, -0.02], [self.who.eye_gap, -0.02]]))
        tip = self.on_face(np.array([[0.0, self.who.nose_length - 0.05]]), 0.24)
        edge = self.flat(self.outline())
        box = np.concatenate([edge.min(0) + np.array([0, 0.2 * self.pose.scale]), edge.max(0)])
        return Landmarks(np.concatenate([eyes, tip, self.on_face(corners)]), box)


def draw_face(canvas: Image, who: Identity, action: Action, pose: Pose) -> Landmarks:
    """Draw one face onto a BGR canvas ``[H, W, 3]`` in place and return its landmarks."""
    return FacePainter(canvas, who, action, pose).paint()
