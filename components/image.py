"""The job's image, named by its digest, and the flex template that launches it, generated and put into its bucket."""

import hashlib
from dataclasses import dataclass

import pulumi
from pulumi_gcp import artifactregistry, storage

from components import naming
from components.identity import Identity
from components.kms import Keys
from components.settings import Settings
from components.storage import Storage
from pipeline.image import template


@dataclass(frozen=True, kw_only=True)
class ImageArgs:
    settings: Settings
    accounts: Identity
    keys: Keys
    storage: Storage


class Image(pulumi.ComponentResource):
    """`template` is the path of the flex template: config's own, or one with the image in it. Empty without either."""

    image: str
    template: pulumi.Output[str]

    def __init__(self, name: str, args: ImageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Image"), name, {}, opts)
        self._args = args
        pipeline = args.settings.pipeline
        self.image = pipeline.image
        self.template = pulumi.Output.from_input(pipeline.template)
        if self.image:
            self._grant_pull("pipeline", args.accounts.pipeline.member)
            self._grant_pull("launcher", args.accounts.launcher.member)
            # Cloud Run pulls as its own agent, whoever the probe runs as.
            self._grant_pull("run", pulumi.Output.concat("serviceAccount:", args.keys.agent("run")))
            if not pipeline.template:
                self.template = self._template()
        self.register_outputs({"image": self.image, "template": self.template})

    def _template(self) -> pulumi.Output[str]:
        """Named for what is in it: another image, or another option, is another path, and so another job."""
        text = template.text(self.image)
        name = f"{naming.STREAM_JOB}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        made = storage.BucketObject(
            "template",
            bucket=naming.bucket(self._args.settings.project, "templates"),
            name=name,
            source=pulumi.StringAsset(text),
            content_type="application/json",
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self._args.storage]),
        )
        return pulumi.Output.all(self._args.storage.templates, made.id).apply(lambda place: f"{place[0]}/{name}")

    def _grant_pull(self, who: str, member: pulumi.Input[str]) -> None:
        """On the one repository that the image is in, which another project may hold: images are promoted by digest."""
        registry, project, repository, _ = self.image.split("/", 3)
        artifactregistry.RepositoryIamMember(
            f"image-{who}",
            project=project,
            location=registry.removesuffix("-docker.pkg.dev"),
            repository=repository,
            role="roles/artifactregistry.reader",
            member=member,
            opts=pulumi.ResourceOptions(parent=self),
        )
