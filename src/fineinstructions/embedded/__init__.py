"""The offline models that ship with the package: encoder, genericizer, instantiator, judge."""
