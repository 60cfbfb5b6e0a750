"""People: proportions, posture, gait and clothing, as flat parts painted one over another.

Lengths are those of a person of 1.75 m (Drillis and Contini 1966, Body segment parameters: thigh 0.245, shank 0.246,
upper arm 0.186, forearm 0.146, head and neck 0.182 of the height). Axes: x to the right or ahead, y up.
"""

from __future__ import annotations

import math

import numpy as np

from clearfuse.synth.scenes.rendering.faces import Face, Real, Upright, limb, srgb, tinted
from clearfuse.synth.scenes.things.clothing import SKIN, TOPS, Body, Outfit, outfit, smooth
from clearfuse.synth.scenes.things.heads import head_front, head_side


def person_faces(
    rng: np.random.Generator, plane: Upright, height: Real, air: float, *, walking: bool | None = None
) -> tuple[list[Face], list[Face]]:
    """A person from the side, the front or the back, walking or standing, the farthest parts first.

    Returns the body's parts and, apart from them, the face's features. air: kelvin.
    """
    u = rng.random(8).tolist()
    clothes = outfit(rng, air)
    body = Body(plane, height / 1.75, 1 if u[0] < 0.5 else -1, max(SKIN - air, 6.0))
    moving = u[1] < 0.65 if walking is None else walking
    if u[2] < (0.6 if moving else 0.2):
        _from_the_side(body, clothes, u[3] * 2 * math.pi, (0.26 + 0.12 * u[4]) if moving else 0.05)
    else:
        _facing(body, clothes, u[5] < 0.5, u[3] if moving else None, u[4], u[6])
    return body.faces, body.features


def _leg_outline(hip: np.ndarray, knee: np.ndarray, ankle: np.ndarray, width: Real, bare: bool = False) -> np.ndarray:
    """Thigh, knee, calf and ankle; in trousers the shank is a tube with a cuff."""
    points = [hip, (hip + knee) / 2, knee, knee + 0.35 * (ankle - knee), knee + 0.75 * (ankle - knee), ankle]
    radii = (0.088, 0.077, 0.053, 0.057, 0.042, 0.036) if bare else (0.092, 0.081, 0.063, 0.064, 0.058, 0.056)
    return limb(np.array(points), [r * width for r in radii])


def _shoe_outline(ankle: np.ndarray, pitch: float) -> np.ndarray:
    """A shoe in side view, its toe ahead, turned by ``pitch`` about the ankle; raised by the toe where positive."""
    sole = np.array(
        [(-0.075, -0.08), (-0.085, -0.03), (-0.05, 0.03), (0.03, 0.03), (0.08, -0.02), (0.16, -0.045), (0.185, -0.08)]
    )
    c, s = math.cos(pitch), math.sin(pitch)
    return smooth(sole @ np.array([[c, s], [-s, c]]) + ankle, 1)


def _turned(length: Real, angle: float) -> np.ndarray:
    """A segment that hangs down, swung ahead by an angle."""
    return np.array([length * math.sin(angle), -length * math.cos(angle)])


def _gait(phase: float, swing: float) -> tuple[float, float, float]:
    """Hip angle, knee flexion and foot pitch in radians (after Winter 1991, The biomechanics of human gait).

    The leg goes back while it stands, 0 to pi, and forward while it swings, with the knee bent; at its end the heel
    strikes, and before it begins the heel is up.
    """
    hip = swing * math.cos(phase) + 0.06
    knee = 0.08 + 2.6 * swing * max(0.0, -math.sin(phase - 0.35)) ** 1.3
    pitch = 0.25 * max(0.0, math.cos(phase)) ** 4 - 0.55 * max(0.0, -math.cos(phase - 0.25)) ** 3
    return hip, knee, pitch * min(swing / 0.3, 1)


def _from_the_side(body: Body, wear: Outfit, phase: float, swing: float) -> None:
    """A walker in profile, facing ahead; standing where the swing is small."""
    legs: list[tuple[np.ndarray, np.ndarray, float]] = []
    for turn in (math.pi, 0.0):
        hip, knee, pitch = _gait(phase + turn, swing)
        bend = _turned(0.43, hip)
        legs.append((bend, bend + _turned(0.43, hip - knee), pitch))
    # The lower of the two feet stands on the ground.
    drop = min(leg[1][1] - 0.08 - 0.1 * abs(math.sin(leg[2])) for leg in legs)
    root = np.array([0.0, -drop])
    up = root[1] - 0.93
    lean = np.array([0.10 * swing, 0.0])
    w = wear.width
    for number, (knee, ankle, pitch) in enumerate(legs):
        tone = 0.62 if number == 0 else 1.0
        if number == 1:
            _arm_side(body, wear, root + np.array([-0.005, 0.45]) + lean, phase + math.pi, swing, 0.66)
        body.part(_shoe_outline(root + ankle, pitch), tinted(wear.shoe, tone), "shoe", material="grain")
        bare = wear.skirt or wear.shorts
        if bare:
            shank = _leg_outline(root, root + knee, root + ankle, 0.95 * w, True)
            body.part(shank, tinted(wear.skin, tone * 0.9), "bare", warm=0.85, material="grain")
        if wear.shorts:
            body.part(_leg_outline(root, root + 0.6 * knee, root + 0.92 * knee, w), tinted(wear.legs, tone), "trousers")
        elif not bare:
            body.part(
                _leg_outline(root, root + knee, root + ankle + np.array([0, 0.02]), w),
                tinted(wear.legs, tone),
                "trousers",
            )
    if wear.skirt:
        reach = 0.5 * max(abs(leg[0][0]) for leg in legs) + 0.12
        skirt = [(-0.11, 0.12), (0.1, 0.12), (0.11, -0.05), (reach, -0.36), (-reach, -0.36), (-0.14, -0.05)]
        body.part(smooth(np.array(skirt) + root), wear.legs, "trousers", warm=0.9)
    at = np.array([0.02, up]) + lean
    neck = limb(np.array([(-0.035, 1.4), (-0.01, 1.56)]) + at, [0.06, 0.052])
    body.part(neck, tinted(wear.skin, 0.75), "neck", material="grain")
    _trunk_side(body, wear, root, lean, swing)
    _arm_side(body, wear, root + np.array([-0.005, 0.45]) + lean, phase, swing, 1.0)
    head_side(body, wear, at)


def _arm_side(body: Body, wear: Outfit, shoulder: np.ndarray, phase: float, swing: float, tone: float) -> None:
    angle = -1.1 * swing * math.cos(phase) - 0.04
    elbow = shoulder + _turned(0.30, angle)
    wrist = elbow + _turned(0.25, angle + 0.22 + 1.0 * swing * max(0.0, -math.cos(phase)))
    along = (wrist - elbow) / 0.25
    hand = limb(np.array([wrist, wrist + 0.07 * along, wrist + 0.145 * along]), [0.026, 0.036, 0.018])
    body.part(hand, tinted(wear.skin, tone * 0.92), "hand", material="grain")
    w = wear.width
    if wear.bare_arms:
        fore = limb(np.array([shoulder, elbow, wrist]), [0.05 * w, 0.042 * w, 0.028])
        body.part(fore, tinted(wear.skin, tone * 0.92), "bare", material="grain")
        sleeve = limb(np.array([shoulder, shoulder + 0.62 * (elbow - shoulder)]), [0.066 * w, 0.06 * w])
        body.part(sleeve, tinted(wear.colour, tone * 0.95), wear.top)
        return
    thick = 1.15 if wear.top == "coat" else 1.0
    middle = elbow + 0.5 * (wrist - elbow)
    sleeve = limb(
        np.array([shoulder, (shoulder + elbow) / 2, elbow, middle, wrist]),
        [r * w * thick for r in (0.064, 0.062, 0.055, 0.052, 0.042)],
    )
    body.part(sleeve, tinted(wear.colour, tone * 0.93), wear.top, warm=0.85)


def _trunk_side(body: Body, wear: Outfit, root: np.ndarray, lean: np.ndarray, swing: float) -> None:
    w = wear.width * (1.12 if wear.top in ("coat", "hoodie") else 1.0)
    drop = wear.hem - 0.93
    flare = 0.13 + (0.25 * swing if drop < -0.2 else 0.0)
    outline = [
        (0.045, 0.55), (0.09, 0.5), (0.128, 0.36), (0.118, 0.2), (0.11, 0.08), (flare, drop), (-flare, drop),
        (-0.128, 0.02), (-0.092, 0.16), (-0.125, 0.36), (-0.115, 0.49), (-0.06, 0.57),
    ]  # fmt: skip
    bent = [(x * w + (root[0] + lean[0] * max(y, 0) / 0.5), y + root[1]) for x, y in outline]
    if wear.bag == "backpack":
        pack = [(-0.1, 0.5), (-0.22, 0.48), (-0.28, 0.32), (-0.27, 0.1), (-0.2, 0.04), (-0.09, 0.06)]
        body.part(smooth(np.array(pack) + root + lean), tinted(TOPS[int(drop * -97) % len(TOPS)], 0.8), "bag")
    body.part(smooth(bent, 2), wear.colour, wear.top)
    if wear.bag == "backpack":
        strap = limb(np.array([(-0.08, 0.5), (0.05, 0.46), (0.07, 0.33), (-0.06, 0.16)]) + root + lean, [0.018] * 4)
        body.part(strap, srgb(0x1E1E22), "bag", material="grain")
    if wear.bag == "shoulder":
        strap = limb(np.array([(0.02, 0.53), (0.06, 0.3), (0.02, 0.1)]) + root + lean, [0.014] * 3)
        body.part(strap, srgb(0x2A211B), "bag", material="grain")
        sack = [(-0.13, 0.12), (0.13, 0.12), (0.15, -0.12), (-0.15, -0.12)]
        body.part(smooth(np.array(sack) + root, 1), srgb(0x33281F), "bag")


def _facing(body: Body, wear: Outfit, back: bool, step: float | None, rest: float, habit: float) -> None:
    """A person from the front or the back. step: of the gait in [0, 1); None where standing, the weight on one leg."""
    w = wear.width
    shift = 0.0 if step is not None else 0.025
    hips = np.array([shift, 0.93])
    swing = math.sin(2 * math.pi * step) if step is not None else 0.0
    for sign in (-1, 1):
        # The leg behind is lifted and seen shortened; the relaxed leg of one who stands points outward.
        lift = 0.12 * max(0.0, sign * swing)
        out = 0.02 if step is not None else (0.035 + 0.06 * rest if sign < 0 else 0.0)
        hip = hips + np.array([sign * 0.082 * w, 0.0])
        knee = np.array([hip[0] + sign * (0.005 + 0.6 * out), 0.49 + 0.45 * lift])
        ankle = np.array([hip[0] + sign * (out - 0.012), 0.085 + lift])
        tone = 0.72 if lift > 0.02 else 1.0
        toe = [(-0.045, 0.06), (-0.05, -0.05), (-0.03, -0.085), (0.03, -0.085), (0.055, -0.05), (0.045, 0.06)]
        turned = np.array([(sign * x * (1 + 6 * out * (y < 0)), y) for x, y in toe])
        body.part(smooth(turned + ankle, 1), tinted(wear.shoe, tone), "shoe", material="grain")
        if wear.skirt or wear.shorts:
            bare = _leg_outline(hip, knee, ankle, 0.92 * w, True)
            body.part(bare, tinted(wear.skin, tone * 0.92), "bare", warm=0.85, material="grain")
        if wear.shorts:
            body.part(_leg_outline(hip, hip + 0.6 * (knee - hip), knee, w), tinted(wear.legs, tone), "trousers")
        elif not wear.skirt:
            body.part(
                _leg_outline(hip, knee, ankle + np.array([0, 0.01]), w * 0.96), tinted(wear.legs, tone), "trousers"
            )
    if wear.skirt:
        skirt = [(-0.15, 1.02), (0.15, 1.02), (0.175, 0.9), (0.2, 0.56), (-0.2, 0.56), (-0.175, 0.9)]
        body.part(smooth([(x * w + shift, y) for x, y in skirt], 1), wear.legs, "trousers", warm=0.9)
    else:
        seat = [(-0.155, 1.0), (0.155, 1.0), (0.175, 0.9), (0.12, 0.76), (-0.12, 0.76), (-0.175, 0.9)]
        body.part(smooth([(x * w + shift, y) for x, y in seat], 1), wear.legs, "trousers")
    arms = [lambda sign=sign: _arm_front(body, wear, sign, swing, habit, shift) for sign in (-1, 1)]
    if not back:
        _trunk_front(body, wear, back, shift)
    for arm in arms:
        arm()
    if back:
        _trunk_front(body, wear, back, shift)
    head_front(body, wear, back, shift * 0.3)


def _arm_front(body: Body, wear: Outfit, sign: int, swing: float, habit: float, shift: float) -> None:
    """An arm at the side, swung a little, in a pocket, or with a telephone in the hand."""
    w = wear.width
    shoulder = np.array([sign * 0.18 * w + 0.3 * shift, 1.37])
    raised = 0.06 * max(0.0, sign * swing)
    elbow = np.array([sign * 0.225 * w, 1.115 + 0.3 * raised])
    wrist = np.array([sign * 0.222 * w, 0.865 + raised])
    if habit < 0.3:
        elbow, wrist = np.array([sign * 0.262 * w, 1.13]), np.array([sign * 0.185 * w, 0.915])
    elif habit < 0.45 and sign > 0:
        elbow, wrist = np.array([0.232 * w, 1.14]), np.array([0.095, 1.27])
    along = (wrist - elbow) / max(float(np.hypot(*(wrist - elbow))), 1e-6)
    hand = limb(np.array([wrist, wrist + 0.065 * along, wrist + 0.13 * along]), [0.027, 0.037, 0.019])
    hidden = habit < 0.3 and not wear.bare_arms
    if not hidden:
        body.part(hand, tinted(wear.skin, 0.92), "hand", material="grain")
    if wear.bare_arms:
        fore = limb(np.array([shoulder, elbow, wrist]), [0.052 * w, 0.044 * w, 0.029])
        body.part(fore, tinted(wear.skin, 0.93), "bare", material="grain")
        sleeve = limb(np.array([shoulder, shoulder + 0.6 * (elbow - shoulder)]), [0.066 * w, 0.06 * w])
        body.part(sleeve, tinted(wear.colour, 0.94), wear.top)
    else:
        thick = 1.15 if wear.top == "coat" else 1.0
        radii = [r * w * thick for r in (0.055, 0.058, 0.053, 0.05, 0.04)]
        points = np.array([shoulder, (shoulder + elbow) / 2, elbow, (elbow + wrist) / 2, wrist])
        body.part(limb(points, radii), tinted(wear.colour, 0.9), wear.top, warm=0.85)


def _trunk_front(body: Body, wear: Outfit, back: bool, shift: float) -> None:
    w = wear.width
    hem, loose = wear.hem, 1.1 if wear.top in ("coat", "hoodie") else 1.0
    waist = 0.145 if wear.long_hair or wear.skirt else 0.152
    half = [(0.05, 1.51), (0.12, 1.475), (0.2, 1.43), (0.222, 1.36), (0.182, 1.22), (waist * loose, 1.09)]
    half += [(0.17 * loose, 0.93), ((0.215 if hem < 0.7 else 0.172) * loose, hem)]
    outline = [(x * w + shift * (1.5 - y), y) for x, y in half]
    outline += [(-x * w + shift * (1.5 - y), y) for x, y in reversed(half)]
    body.part(smooth(outline, 2), wear.colour, wear.top)
    dark = tinted(wear.colour, 0.5)
    if back:
        if wear.bag == "backpack":
            pack = [
                (-0.13, 1.4),
                (0.13, 1.4),
                (0.165, 1.3),
                (0.16, 1.02),
                (0.12, 0.97),
                (-0.12, 0.97),
                (-0.16, 1.02),
                (-0.165, 1.3),
            ]
            tone = tinted(TOPS[int(hem * 97) % len(TOPS)], 0.75)
            body.part(smooth(pack, 1), tone, "bag")
            body.part(smooth([(-0.11, 1.18), (0.11, 1.18), (0.12, 1.02), (-0.12, 1.02)], 1), tinted(tone, 0.8), "bag")
    else:
        wide = 0.05 if wear.open else 0.0
        if wear.open:
            front = [(-0.05, 1.49), (0.05, 1.49), (0.06, 1.3), (0.07, hem + 0.03), (-0.05, hem + 0.03), (-0.055, 1.3)]
            body.part(front, wear.shirt, "shirt")
        elif wear.top != "shirt":
            body.part([(-0.006, 1.45), (0.006, 1.45), (0.006, hem), (-0.006, hem)], dark, wear.top, small=True)
        for sign in (-1, 1):
            lapel = [
                (sign * 0.065, 1.5),
                (sign * (0.075 + wide), 1.44),
                (sign * (0.03 + wide), 1.33),
                (sign * 0.01, 1.42),
            ]
            if wear.top in ("coat", "jacket"):
                body.part(lapel, tinted(wear.colour, 0.72), wear.top, warm=1.15)
            if wear.bag == "backpack":
                strap = limb([(sign * 0.115, 1.46), (sign * 0.12, 1.3), (sign * 0.16, 1.1)], [0.02, 0.02, 0.018])
                body.part(strap, srgb(0x1E1E22), "bag", material="grain")
        if wear.top in ("hoodie", "shirt"):
            body.part(smooth([(-0.06, 1.5), (0.06, 1.5), (0.0, 1.43)], 1), tinted(wear.skin, 0.8), "neck", small=True)
    if wear.top == "hoodie":
        hood = [
            (-0.09, 1.5),
            (-0.12, 1.45),
            (-0.06, 1.4 if back else 1.46),
            (0.06, 1.4 if back else 1.46),
            (0.12, 1.45),
            (0.09, 1.5),
        ]
        body.part(smooth(hood, 1), tinted(wear.colour, 0.8), wear.top)
    if wear.bag == "shoulder":
        strap = limb([(-0.13, 1.46), (0.02, 1.2), (0.16, 0.98)], [0.013] * 3)
        body.part(strap, srgb(0x2A211B), "bag", material="grain")
        body.part(smooth(np.array([(0.1, 1.0), (0.26, 0.99), (0.27, 0.76), (0.11, 0.77)]), 1), srgb(0x33281F), "bag")
