"""The Google Cloud provider of a stack: its project, region, labels and endpoints; and its children."""

import pulumi
import pulumi_gcp as gcp

from components.replacement import old_one_first
from components.settings import Settings


def google(settings: Settings) -> gcp.Provider:
    """The one provider that every resource uses, so that no resource depends on who runs Pulumi where."""
    endpoints = settings.endpoints
    return gcp.Provider(
        "google",
        project=settings.project,
        region=settings.region,
        # Some APIs (the perimeter's) count calls against a project: the stack's, not that of whoever calls.
        billing_project=settings.project,
        user_project_override=True,
        default_labels=settings.labels,
        spanner_custom_endpoint=f"{endpoints.spanner_admin}/v1/" if endpoints.spanner_admin else None,
        big_query_custom_endpoint=f"{endpoints.big_query}/bigquery/v2/" if endpoints.big_query else None,
    )


def under(provider: gcp.Provider, *needs: pulumi.Resource) -> pulumi.ResourceOptions:
    """Options of a component, and of all its children. `needs` are there before it."""
    return pulumi.ResourceOptions(provider=provider, depends_on=list(needs), transformations=[old_one_first])
