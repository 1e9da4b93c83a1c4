"""BEiT's block-wise masking, literally (algorithm 1 and its published settings), falling short as it does."""

import math
import random


def blocks(
    height: int, width: int, count: int, smallest: int, draw: random.Random
) -> list[list[bool]]:
    """Flags of at most `count` hidden patches: rectangles until ten tries in a row fail."""
    hidden = [[False] * width for _ in range(height)]
    done = 0
    while done < count:
        room = count - done
        for _ in range(10):
            area = draw.uniform(smallest, room)
            aspect = math.exp(draw.uniform(math.log(0.3), math.log(1 / 0.3)))
            rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if not (rows < height and columns < width):
                continue
            top, left = draw.randint(0, height - rows), draw.randint(0, width - columns)
            cells = [(y, x) for y in range(top, top + rows) for x in range(left, left + columns)]
            new = [(y, x) for y, x in cells if not hidden[y][x]]
            if 0 < len(new) <= room:
                for y, x in new:
                    hidden[y][x] = True
                done += len(new)
                break
        else:
            return hidden
    return hidden
