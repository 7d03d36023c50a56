"""On the path of the `stock` benchmark cell only: lets vLLM's `llava` module be imported.

Symptom: it imports transformers' Pixtral processor, which imports `torchvision.transforms.v2` at
module level; beside a CPU torch there is no working torchvision on PyPI. Nothing of it is called
for CLIP models. An entry for that one name answers the import and leaves torchvision absent for
everyone who asks. Can go when either import becomes lazy, or PyPI has CPU builds.
"""

import sys
from types import ModuleType

transforms = ModuleType("torchvision.transforms.v2")
transforms.functional = ModuleType("torchvision.transforms.v2.functional")  # type: ignore[attr-defined]
sys.modules["torchvision.transforms.v2"] = transforms
