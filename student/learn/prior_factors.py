"""How far the priors of a posterior are from graft's own, which every project has; the study changes them."""

from pydantic import Field

from runtime.frozen_model import FrozenModel


def _factor(what: str) -> float:
    factor: float = Field(default=1.0, ge=0, description=what)
    return factor


class PriorFactors(FrozenModel):
    """Factors of graft's priors: each multiplies what its row names. 0 switches a part off: it adds nothing, ever."""

    intercept: float = _factor("the variance of the intercept")
    means: float = _factor("the variance of the weights of the mean labels of user, item and categories")
    counts: float = _factor("the variance of the weights of their numbers of labels")
    profiles: float = _factor("the variance of the weights of the profiles that are mean logits")
    dense: float = _factor("the variance of the weights of all other dense columns")
    mean_logits: float = _factor(
        "the variance of the weights of the running mean logits of user and item, and of a user's slope on the item's"
    )
    other_tasks: float = _factor("the variance of the weights of the effects of user and item on other tasks")
    network: float = _factor("the variance of the weight of the network's value")
    trust: float = _factor("the variance of each user's slope on the network's value")
    user: float = _factor("the variance of each user's effect; 0: no drift either")
    drift: float = _factor("the variance that a user's effect gains at each sighting")
    item: float = _factor("the variance of each item's effect")
    category: float = _factor("the variance of the effect of each value of another category")
    taste: float = _factor("the variance of each user's slopes on the item's dense columns")
    blend: float = _factor("the variance of the weights of the tasks' values in each other's")
    expected: float = _factor("the number of labels as which the labels that a bootstrapped network expects count")
    residual: float = Field(
        default=1.0, gt=0, description="the number of errors as which a regression's first variance counts"
    )
    pseudo_labels: float = Field(
        default=1.0,
        gt=0,
        description="the number of labels as which the mean of all labels counts in an id's mean label",
    )
    pseudo_logits: float = Field(
        default=1.0,
        gt=0,
        description="the number of logits as which the mean of all logits counts in a user's or an item's mean logit",
    )
