"""Test vectors for whoever writes a kernel in another language.

`write_vectors` writes one operator's tensors to files, `write_suite` small cases of all operators; `compare`
and `compare_suite` tell what is wrong with the outputs of a kernel.
"""

from tinyconv.vectors.compare import *
from tinyconv.vectors.operators import *
from tinyconv.vectors.suite import *
from tinyconv.vectors.write import *
