"""How far the priors of a posterior are from graft's own, which every project has; the study changes them."""

from pydantic import BaseModel, ConfigDict, Field


def _factor(of: str) -> float:
    factor: float = Field(default=1.0, ge=0, description=of)
    return factor


class PriorFactors(BaseModel):
    """What the variances of graft's priors are multiplied by. 0 switches a part off: it adds nothing, ever.

    The last four are numbers of labels, errors or logits instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    intercept: float = _factor("of the intercept")
    means: float = _factor("of the weights of the mean labels of user, item and categories")
    counts: float = _factor("of the weights of their numbers of labels")
    profiles: float = _factor("of the weights of the profiles that are mean logits")
    dense: float = _factor("of the weights of all other dense columns")
    mean_logits: float = _factor(
        "of the weights of the running mean logits of user and item, and of each user's slope on the item's"
    )
    other_tasks: float = _factor("of the weights of the effects of user and item on other tasks")
    network: float = _factor("of the weight of the network's value")
    trust: float = _factor("of each user's slope on the network's value")
    user: float = _factor("of each user's effect; 0: no drift either")
    drift: float = _factor("of what a user's effect gains at each sighting")
    item: float = _factor("of each item's effect")
    category: float = _factor("of the effect of each value of another category")
    taste: float = _factor("of each user's slopes on the item's dense columns")
    blend: float = _factor("of the weights of the tasks' values in each other's")
    expected: float = _factor("of the number of labels that those which a bootstrapped network expects count as")
    residual: float = Field(
        default=1.0, gt=0, description="of the number of errors that a regression's first variance counts as"
    )
    pseudo_labels: float = Field(
        default=1.0, gt=0, description="of the number of labels of an id that the mean of all counts as in its own"
    )
    pseudo_logits: float = Field(
        default=1.0, gt=0, description="of the number of logits of a user or an item that the mean of all counts as"
    )
