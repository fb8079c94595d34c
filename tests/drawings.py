"""Pictures of the shapes that the smoke preset learns."""

import io

from PIL import Image, ImageDraw


def drawing(shape: str) -> bytes:
    """Return a PNG of one of the shapes that the smoke preset learns, light on dark, without its noise."""
    image = Image.new("RGB", (32, 32), (40, 30, 60))
    draw = ImageDraw.Draw(image)
    colour = (230, 200, 180)
    if shape == "disc":
        draw.ellipse((7, 7, 25, 25), fill=colour)
    elif shape == "square":
        draw.rectangle((7, 7, 25, 25), fill=colour)
    else:
        for row in range(0, 32, 8):
            draw.rectangle((0, row, 31, row + 3), fill=colour)
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
