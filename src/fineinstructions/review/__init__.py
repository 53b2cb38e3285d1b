"""Windows onto a run: lineage of a pair, samples of pairs and rejections."""
