"""Writes a picture of one colour. Usage: python make_picture.py COLOUR FILE."""

import sys

from PIL import Image

if __name__ == "__main__":
    Image.new("RGB", (640, 480), sys.argv[1]).save(sys.argv[2])
