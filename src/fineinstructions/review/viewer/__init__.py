"""A local web page onto a finished run: pairs beside their documents, rejections, thresholds, labels.

In: a run folder and a reader of its documents. Out: pages made on the server, one small script for keys and sliders.
Texts of documents, queries and models are hostile: they are escaped in every place, and no page runs what it shows.
"""
