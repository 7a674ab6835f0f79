"""All mutations, which `nox -s mutants` runs."""

from mutation import Mutation
from mutations_of_modules import MUTATIONS as OF_MODULES
from mutations_of_rules import MUTATIONS as OF_RULES
from mutations_of_state import MUTATIONS as OF_STATE
from mutations_semantics import BROKEN, FOUND

OF_SEMANTICS = [
    Mutation(what, file, old, new, (FOUND, "-k", found)) for what, file, old, new, found in BROKEN
]
MUTATIONS: list[Mutation] = [*OF_RULES, *OF_STATE, *OF_MODULES, *OF_SEMANTICS]
