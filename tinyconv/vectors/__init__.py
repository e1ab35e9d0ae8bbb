"""Test vectors for whoever writes a kernel in another language.

`write_vectors` writes one operator's tensors to files, and `write_suite` small cases of all operators.
"""

from tinyconv.vectors.operators import *
from tinyconv.vectors.suite import *
from tinyconv.vectors.write import *
