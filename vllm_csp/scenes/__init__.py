"""Synthetic scenes with exact masks and questions that need reasoning, unlimited and seeded.

`make_sample(seed, split)` paints two to six objects and asks about eight questions of the kinds in
`KINDS`. It needs numpy and Pillow only.

The splits "train", "val" and "test" share neither a scene nor a combination of template and
attributes:

- *Scenes*: what the objects of a scene are (size, fill, colour and shape of each, wherever they
  lie) is hashed, and the hash says to which split such a scene belongs: 8 of 10 to train, 1 to val,
  1 to test. Each seed draws until it has a scene of its split, so no seeds of two splits collide.
- *Questions*: a phrase with two or more attribute words (colours, shapes, fills), such as "the star
  that is red", is hashed, and is asked in the split of its hash only, whatever request is around it
  ("Can you segment ... in this image?"). Phrases with fewer, such as "the leftmost object", are
  hashed together with their request. So val and test ask with known words, in combinations of
  template and attributes that training has not seen.
- *Photos* behind the objects are the caller's: hand different ones to different splits.
"""

from vllm_csp.scenes.kinds import KINDS
from vllm_csp.scenes.sample import SceneQuestion, SceneSample, make_sample
from vllm_csp.scenes.scene import Scene, SceneObject, Split

__all__ = [
    "KINDS",
    "Scene",
    "SceneObject",
    "SceneQuestion",
    "SceneSample",
    "Split",
    "make_sample",
]
