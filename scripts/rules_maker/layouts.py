"""Other layouts of files that from_pretrained takes for a class, beside the one of save_pretrained and the module's own names."""
from rules_maker.evaluate import leaves


def add_alternatives(rule, cls, instances, held_out):
    pass


def sources(rule):
    """Names of the files' tensors in a rule, with 0 as all their numbers."""
    return set()


def old_names(cls, instance):
    return []
