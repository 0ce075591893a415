"""Street scenes drawn from a seed: the built-in data set's images and labels."""
import cv2
import numpy as np

CLASSES = ('sky', 'building', 'road', 'sidewalk', 'tree', 'car', 'bus', 'person', 'pole', 'sign')
SKY, BUILDING, ROAD, SIDEWALK, TREE, CAR, BUS, PERSON, POLE, SIGN = range(len(CLASSES))
VOID = 255
#: Strength of the surface's texture, in grey levels, by label.
TEXTURE = np.zeros((256, 1), np.float32)
TEXTURE[:10, 0] = 3, 7, 8, 10, 20, 4, 4, 7, 4, 4
#: Half the road's width, on the ground line where an object of the height 1 stands.
ROAD_HALF_WIDTH = 1.7
#: Width of a sidewalk, in the same measure.
SIDEWALK_WIDTH = 1.2


class StreetScenePainter:
    """Draws one scene, far things first, so that near ones hide them.

    A flat world seen through a pinhole: what stands on the image row
    ``horizon + s`` is ``s`` times as large as what stands one row below the
    horizon. Labels are drawn with integer arithmetic alone and are the same
    on every machine; the image's last bits may depend on OpenCV's build.

    Args:
        seed (int): The scene.
        width (int): Width of the image in pixels.
        height (int): Height of the image in pixels.
    """

    def __init__(self, seed: int, width: int, height: int) -> None:
        self.rng = np.random.RandomState(seed)
        self.width, self.height = width, height
        self.image = np.zeros((height, width, 3), np.uint8)
        self.label = np.full((height, width), SKY, np.uint8)
        self.horizon = int(height * self.rng.uniform(0.32, 0.5))
        self.vanishing = width * self.rng.uniform(0.3, 0.7)

    def paint(self) -> tuple[np.ndarray, np.ndarray]:
        """The scene.

        Returns:
            tuple[np.ndarray, np.ndarray]: The image in BGR, uint8 (H, W, 3),
            and its labels, uint8 (H, W), 255 where the own car is seen.
        """
        self._sky()
        self._ground()
        for side in (-1, 1):
            self._buildings(side)
        self._things()
        self._own_car()
        return self._photograph(), self.label

    # --- the stage ----------------------------------------------------------
    def _sky(self) -> None:
        top, bottom = self._colour((235, 190, 140), 30), self._colour((235, 225, 215), 20)
        ramp = np.linspace(0, 1, self.height, dtype=np.float32)[:, None, None]
        self.image[:] = (1 - ramp) * top + ramp * bottom
        for _ in range(self.rng.randint(4)):
            centre = self.rng.randint(self.width), self.rng.randint(max(1, self.horizon))
            axes = int(self.width * self.rng.uniform(0.05, 0.2)), int(self.height * self.rng.uniform(0.01, 0.05))
            cv2.ellipse(self.image, centre, axes, 0, 0, 360, self._grey(225, 25), -1)

    def _ground(self) -> None:
        self._box(0, self.horizon, self.width, self.height, self._grey(150, 35), SIDEWALK)
        near = self.height - self.horizon
        road = self._grey(95, 30)
        self._on_ground([(-ROAD_HALF_WIDTH, 0), (ROAD_HALF_WIDTH, 0), (ROAD_HALF_WIDTH, near),
                         (-ROAD_HALF_WIDTH, near)], road, ROAD)
        kerb = self._grey(175, 25)
        for side in (-1, 1):
            x = side * ROAD_HALF_WIDTH
            self._on_ground([(x, 0), (x, near), (x + side * 0.15, near), (x + side * 0.15, 0)], kerb, SIDEWALK)
        mark, offset = self._grey(215, 30), self.rng.uniform(-0.6, 0.6)
        for far, step in ((0.06, 0.05), (0.16, 0.09), (0.33, 0.17), (0.65, 0.3)):
            self._on_ground([(offset - 0.08, near * far), (offset + 0.08, near * far),
                             (offset + 0.08, near * (far + step)), (offset - 0.08, near * (far + step))], mark, ROAD)
        if self.rng.rand() < 0.3:  # a crossing
            at = near * self.rng.uniform(0.3, 0.7)
            for x in np.arange(-ROAD_HALF_WIDTH + 0.3, ROAD_HALF_WIDTH - 0.4, 0.9):
                self._on_ground([(x, at), (x + 0.45, at), (x + 0.45, at * 1.2), (x, at * 1.2)], mark, ROAD)

    def _buildings(self, side: int) -> None:
        """A row of houses along the street, each with its own colour, height and windows."""
        edge = ROAD_HALF_WIDTH + SIDEWALK_WIDTH
        far = 2.0
        while far < self.height - self.horizon:
            near = far * self.rng.uniform(1.5, 2.6)
            if self.rng.rand() < 0.85:
                tall = self.rng.uniform(3.0, 9.0)
                x0, x1 = self._column(side * edge, far), self._column(side * edge, near)
                wall = self._colour(self._grey(140, 50), 28)
                corners = [(x0, self.horizon + far), (x0, self.horizon + far - tall * far * 0.8),
                           (x1, self.horizon + near - tall * near * 0.8), (x1, self.horizon + near)]
                self._polygon(corners, wall, BUILDING)
                if self.rng.rand() < 0.8:
                    self._windows(x0, x1, far, near, tall, wall)
            far = near

    def _windows(self, x0: float, x1: float, far: float, near: float, tall: float, wall: tuple) -> None:
        pane = tuple(int(v * self.rng.uniform(0.35, 0.7)) for v in wall)
        columns, rows = self.rng.randint(2, 6), max(2, int(tall * 0.8))
        across, up = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.6) / (rows + 0.3))
        scale = far + (near - far) * across
        x = x0 + (x1 - x0) * across
        y = self.horizon + scale - up * tall * scale * 0.8
        half_width = abs(x1 - x0) / columns * 0.28
        half_height = scale * 0.8 * tall / rows * 0.25
        panes = np.stack([np.stack([x + dx * half_width, y + dy * half_height], -1)
                          for dx, dy in ((-1, -1), (1, -1), (1, 1), (-1, 1))], -2)
        cv2.fillPoly(self.image, list(np.rint(panes).astype(np.int32).reshape(-1, 4, 2)), pane)

    # --- things that stand in the street ------------------------------------
    def _things(self) -> None:
        """Cars, people, trees, …, in the order of their distance."""
        kinds = [(self._tree, 1, 6), (self._car, 0, 6), (self._person, -2, 5), (self._pole, 0, 5), (self._sign, -2, 4)]
        things = [kind for kind, least, most in kinds for _ in range(self.rng.randint(least, most))]
        if self.rng.rand() < 0.14:
            things.append(self._bus)
        near = self.height - self.horizon
        scales = near * (0.08 + 0.75 * self.rng.rand(len(things))**2)
        for i in np.argsort(scales):
            things[i](scales[i])

    def _car(self, s: float) -> None:
        x = self.rng.choice([-1, 1]) * self.rng.uniform(0.3, ROAD_HALF_WIDTH - 0.3)
        centre, base = self._column(x, s), self.horizon + s
        wide, tall = s * self.rng.uniform(0.75, 1.25), s * self.rng.uniform(0.55, 0.75)
        paint = self._colour(self._grey(110, 80), 35)
        self._shadow(centre, base, wide)
        self._box(centre - wide / 2, base - tall * 0.6, centre + wide / 2, base - tall * 0.1, paint, CAR)
        self._polygon([(centre - wide * 0.4, base - tall * 0.6), (centre - wide * 0.27, base - tall),
                       (centre + wide * 0.27, base - tall), (centre + wide * 0.4, base - tall * 0.6)], paint, CAR)
        glass = self._grey(60, 30)
        self._polygon([(centre - wide * 0.33, base - tall * 0.62), (centre - wide * 0.23, base - tall * 0.92),
                       (centre + wide * 0.23, base - tall * 0.92), (centre + wide * 0.33, base - tall * 0.62)],
                      glass, CAR)
        for wheel in (-0.36, 0.36):
            self._disc(centre + wide * wheel, base - tall * 0.12, tall * 0.15, self._grey(30, 15), CAR)
            self._disc(centre + wide * wheel * 1.1, base - tall * 0.42, tall * 0.06, (60, 60, 200), CAR)

    def _bus(self, s: float) -> None:
        s = max(s, (self.height - self.horizon) * 0.2)
        x = self.rng.choice([-1, 1]) * self.rng.uniform(0.6, ROAD_HALF_WIDTH - 0.4)
        centre, base = self._column(x, s), self.horizon + s
        wide, tall = s * self.rng.uniform(1.2, 2.2), s * self.rng.uniform(1.5, 1.9)
        self._shadow(centre, base, wide)
        self._box(centre - wide / 2, base - tall, centre + wide / 2, base - tall * 0.08,
                  self._colour(self._grey(130, 60), 45), BUS)
        self._box(centre - wide * 0.45, base - tall * 0.85, centre + wide * 0.45, base - tall * 0.5,
                  self._grey(60, 30), BUS)
        for wheel in (-0.33, 0.33):
            self._disc(centre + wide * wheel, base - tall * 0.08, tall * 0.09, self._grey(30, 15), BUS)

    def _person(self, s: float) -> None:
        on_road = self.rng.rand() < 0.25
        x = self.rng.uniform(-ROAD_HALF_WIDTH, ROAD_HALF_WIDTH) if on_road else self._beside_road()
        centre, base = self._column(x, s), self.horizon + s
        tall = s * self.rng.uniform(0.75, 1.0)
        coat, trousers = self._colour(self._grey(95, 60), 40), self._colour(self._grey(65, 40), 15)
        for leg in (-0.09, 0.03):
            self._box(centre + tall * leg, base - tall * 0.48, centre + tall * (leg + 0.06), base, trousers, PERSON)
        self._box(centre - tall * 0.13, base - tall * 0.83, centre + tall * 0.13, base - tall * 0.42, coat, PERSON)
        self._disc(centre, base - tall * 0.91, tall * 0.09, self._colour((120, 150, 190), 40), PERSON)

    def _tree(self, s: float) -> None:
        centre, base = self._column(self._beside_road(), s), self.horizon + s
        tall, leaves = s * self.rng.uniform(1.8, 3.8), self._colour((55, 105, 70), 35)
        self._box(centre - tall * 0.03, base - tall * 0.5, centre + tall * 0.03, base, self._colour((50, 65, 80), 20),
                  TREE)
        for _ in range(5):
            dx, dy = self.rng.uniform(-0.18, 0.18), self.rng.uniform(0.5, 0.9)
            shade = self.rng.uniform(0.75, 1.15)
            self._disc(centre + tall * dx, base - tall * dy, tall * self.rng.uniform(0.1, 0.2),
                       tuple(int(min(255, v * shade)) for v in leaves), TREE)

    def _pole(self, s: float) -> None:
        centre, base = self._column(self._beside_road(), s), self.horizon + s
        tall, half = s * self.rng.uniform(2.0, 3.5), max(0.5, s * 0.035)
        grey = self._grey(100, 45)
        self._box(centre - half, base - tall, centre + half, base, grey, POLE)
        if self.rng.rand() < 0.5:  # a lamp's arm
            arm = tall * self.rng.uniform(0.1, 0.25) * self.rng.choice([-1, 1])
            self._box(min(centre, centre + arm), base - tall, max(centre, centre + arm), base - tall + 2 * half, grey,
                      POLE)

    def _sign(self, s: float) -> None:
        s = max(s, (self.height - self.horizon) * 0.22)
        centre, base = self._column(self._beside_road(), s), self.horizon + s
        tall, half = s * self.rng.uniform(1.1, 1.6), s * self.rng.uniform(0.14, 0.26)
        self._box(centre - max(0.5, s * 0.025), base - tall, centre + max(0.5, s * 0.025), base, self._grey(120, 30),
                  POLE)
        colours = [(40, 40, 200), (190, 110, 40), (60, 200, 220), (220, 220, 220)]
        outer, inner = (colours[i] for i in self.rng.permutation(4)[:2])
        if self.rng.rand() < 0.5:
            self._disc(centre, base - tall, half, outer, SIGN)
            self._disc(centre, base - tall, half * 0.55, inner, SIGN)
        else:
            self._box(centre - half, base - tall - half, centre + half, base - tall + half, outer, SIGN)
            self._box(centre - half / 2, base - tall - half / 2, centre + half / 2, base - tall + half / 2, inner,
                      SIGN)

    def _own_car(self) -> None:
        if self.rng.rand() < 0.25:
            top = self.height * self.rng.uniform(0.92, 0.97)
            self._polygon([(0, self.height), (self.width * 0.15, top), (self.width * 0.85, top),
                           (self.width, self.height)], self._grey(50, 25), VOID)

    # --- the camera ---------------------------------------------------------
    def _photograph(self) -> np.ndarray:
        """Texture, haze, light, blur and noise."""
        rng, shape = self.rng, (self.height, self.width)
        grain = rng.randn(self.height, self.width, 1).astype(np.float32)
        coarse = cv2.resize(rng.randn(self.height // 8 + 1, self.width // 8 + 1).astype(np.float32), shape[::-1],
                            interpolation=cv2.INTER_LINEAR)[..., None]
        image: np.ndarray = self.image + TEXTURE[self.label] * (0.6 * grain + 0.8 * coarse)
        if rng.rand() < 0.4:  # haze, thicker towards the horizon
            distance = 1 - np.abs(np.arange(self.height) - self.horizon) / self.height
            thickness = (rng.uniform(0.1, 0.5) * distance**3).astype(np.float32)[:, None, None]
            image = image * (1 - thickness) + 200 * thickness
        light = rng.uniform(0.45, 1.15) * rng.uniform(0.88, 1.12, 3)
        sideways = np.linspace(-1, 1, self.width, dtype=np.float32)[:, None] * rng.uniform(-0.25, 0.25) + 1
        image = image * (light * sideways).astype(np.float32)
        if rng.rand() < 0.3:
            image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.4, 0.9))
        image = image + rng.randn(*shape, 3).astype(np.float32) * np.float32(rng.uniform(2, 9))
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)

    # --- pencils ------------------------------------------------------------
    def _beside_road(self) -> float:
        return self.rng.choice([-1, 1]) * (ROAD_HALF_WIDTH + self.rng.uniform(0.2, SIDEWALK_WIDTH))

    def _column(self, x: float, s: float) -> float:
        """Where x stands on the ground line of scale s."""
        return self.vanishing + x * s

    def _colour(self, mean: tuple, spread: float) -> tuple:
        return tuple(int(v) for v in np.clip(mean + self.rng.uniform(-spread, spread, 3), 0, 255))

    def _grey(self, mean: float, spread: float) -> tuple:
        return (int(np.clip(mean + self.rng.uniform(-spread, spread), 0, 255)), ) * 3

    def _polygon(self, corners: list, colour: tuple, label: int) -> None:
        outline = np.rint(corners).astype(np.int32)
        cv2.fillPoly(self.image, [outline], colour)
        cv2.fillPoly(self.label, [outline], label)

    def _on_ground(self, corners: list, colour: tuple, label: int) -> None:
        self._polygon([(self._column(x, s), self.horizon + s) for x, s in corners], colour, label)

    def _box(self, x0: float, y0: float, x1: float, y1: float, colour: tuple, label: int) -> None:
        corners = tuple(np.rint((x0, y0)).astype(int).tolist()), tuple(np.rint((x1, y1)).astype(int).tolist())
        cv2.rectangle(self.image, *corners, colour, -1)
        cv2.rectangle(self.label, *corners, label, -1)

    def _disc(self, x: float, y: float, radius: float, colour: tuple, label: int) -> None:
        centre, radius = (round(x), round(y)), max(1, round(radius))
        cv2.circle(self.image, centre, radius, colour, -1)
        cv2.circle(self.label, centre, radius, label, -1)

    def _shadow(self, centre: float, base: float, wide: float) -> None:
        """Darkens the ground under a vehicle; no class of its own."""
        y, half = round(base), max(1, round(wide * 0.5))
        x0, x1 = max(0, round(centre) - half), max(0, round(centre) + half)
        self.image[max(0, y - 1):y + 2, x0:x1] //= 2
