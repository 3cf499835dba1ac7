"""What Google never deletes: key rings and keys, identity pools for 30 days, log buckets for 7."""

import pulumi


def retained(
    parent: pulumi.Resource, place: str, *, adopt: bool, protect: bool | None = None
) -> pulumi.ResourceOptions:
    """Options of a resource that stays when its stack is destroyed; `place` is its id at Google.

    Its name stays taken, so the next `up` of a destroyed stack gets 409 for it unless it adopts it (adoptRetained).
    """
    return pulumi.ResourceOptions(
        parent=parent, protect=protect, retain_on_delete=True, import_=place if adopt else None
    )
