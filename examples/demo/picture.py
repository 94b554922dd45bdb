"""A picture in tiles: hills at dusk, computed when the module is imported, as PNG files of a few kilobytes each."""

import itertools
import math
import random
import struct
import zlib

COLUMNS, ROWS = 18, 10
TILE = 40
WIDTH, HEIGHT = COLUMNS * TILE, ROWS * TILE
SUN_X, SUN_Y, SUN_RADIUS = 0.655 * WIDTH, 0.545 * HEIGHT, 30

SKY = [(0.0, (23, 26, 70)), (0.2, (58, 47, 122)), (0.36, (138, 73, 148)), (0.5, (226, 110, 124)),
       (0.6, (250, 164, 108)), (0.72, (255, 212, 140))]
"""Colours from the top down, each with its height."""
SUN, GLOW = (255, 240, 205), (255, 196, 138)
RIDGES = [
    # base, height of the waves, octave's first wavelength and phase, colour at the crest and at the bottom
    (0.60, 0.050, 310, 0.4, (206, 112, 138), (240, 158, 132)),
    (0.67, 0.065, 240, 2.1, (150, 79, 135), (196, 110, 136)),
    (0.76, 0.070, 280, 4.0, (96, 58, 120), (132, 74, 130)),
    (0.85, 0.065, 200, 1.2, (52, 40, 92), (84, 54, 112)),
    (0.94, 0.060, 170, 5.3, (22, 22, 56), (34, 28, 68)),
]


def draw():
    """Return the picture: RGB octets, row by row."""
    crests = [crest(*ridge[:4]) for ridge in RIDGES]
    glow_x = [math.exp(-(((x - SUN_X) / 170) ** 2)) for x in range(WIDTH)]
    stars = draw_stars()
    rows = []
    for y in range(HEIGHT):
        sky = sky_at(y / HEIGHT)
        glow_y = 0.8 * math.exp(-(((y - SUN_Y) / 85) ** 2))
        hills = [mix(*ridge[4:], min(1, max(0, (y / HEIGHT - ridge[0]) / 0.22))) for ridge in RIDGES]
        row = bytearray()
        for x in range(WIDTH):
            front = next((number for number in range(len(RIDGES) - 1, -1, -1) if y >= crests[number][x]), -1)
            covered = min(1.0, y + 1 - crests[front][x]) if front >= 0 else 0.0
            if covered < 1:
                behind = sky_pixel(sky, x, y, glow_x[x] * glow_y, stars) if front <= 0 else hills[front - 1]
                row += bytes(map(int, mix(behind, hills[front], covered) if front >= 0 else behind))
            else:
                row += bytes(map(int, hills[front]))
        rows.append(bytes(row))
    return rows


def crest(base, height, wavelength, phase):
    """Return the height of a ridge at each column: three waves, the shorter the flatter."""
    return [
        HEIGHT * (base - height * (
            0.6 * math.sin(x / wavelength * math.tau + phase)
            + 0.28 * math.sin(x / wavelength * 2.3 * math.tau + 3 * phase)
            + 0.12 * math.sin(x / wavelength * 6.1 * math.tau + 5 * phase)))
        for x in range(WIDTH)
    ]


def sky_at(height):
    """Return the colour of the sky."""
    for (low, first), (high, second) in itertools.pairwise(SKY):
        if height < high:
            return mix(first, second, (height - low) / (high - low))
    return SKY[-1][1]


def sky_pixel(colour, x, y, glow, stars):
    """Return the colour of the sky with the sun and the stars in it."""
    colour = mix(colour, GLOW, glow)
    disc = SUN_RADIUS + 0.5 - math.hypot(x - SUN_X, y - SUN_Y)
    if disc > 0:
        colour = mix(colour, SUN, min(1.0, disc))
    return mix(colour, (255, 255, 255), stars[x, y]) if (x, y) in stars else colour


def draw_stars():
    """Return how bright the stars are, by place: always the same ones."""
    choose = random.Random(9113)
    stars = {}
    for _ in range(110):
        x, y = choose.randrange(WIDTH), int(HEIGHT * 0.34 * choose.random() ** 1.5)
        stars[x, y] = choose.uniform(0.25, 0.95) * (1 - y / HEIGHT / 0.4)
    return stars


def mix(first, second, share):
    """Return a colour between two."""
    return tuple(a + (b - a) * share for a, b in zip(first, second, strict=True))


def png(rows, width):
    """Return a PNG file of rows of RGB octets."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, len(rows), 8, 2, 0, 0, 0)
    # Filter 2: differences from the row above.
    octets, previous = bytearray(), bytes(width * 3)
    for row in rows:
        octets += b"\x02" + bytes((new - old) & 255 for new, old in zip(row, previous, strict=True))
        previous = row
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(octets, 9)) + chunk(b"IEND", b"")


def cut(rows):
    """Yield the tiles of the picture, row by row."""
    for top in range(0, HEIGHT, TILE):
        for left in range(0, WIDTH, TILE):
            yield png([row[left * 3:(left + TILE) * 3] for row in rows[top:top + TILE]], TILE)


TILES = list(cut(draw()))
