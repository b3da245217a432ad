"""A network as a page for the browser, in one file: every layer for chosen samples and for one that
is drawn by hand, computed in the page itself.

`steps` writes a network down as the steps that the page can compute, `page` puts these together
with the weights, some samples, and the scripts beside this file. `forward.js` is the forward pass
and `connections.js` what a unit is computed from, both free of the browser; `paint.js` draws maps,
`drawing.js` is the pad, `page.js` the rest. The idea is A. W. Harley's: "An interactive node-link
visualization of convolutional neural networks" (2015).
"""

from cnncc.model.view.page import Sampling, make_page
from cnncc.model.view.steps import Drawn, drawn

__all__ = ["Drawn", "Sampling", "drawn", "make_page"]
