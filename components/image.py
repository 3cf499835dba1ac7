"""The images, named by their digests, who pulls them, and the flex template that launches the job's."""

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
            self._grant_pull("pipeline", self.image, args.accounts.pipeline.member)
            if pipeline.owner != "pulumi":
                self._grant_pull("launcher", self.image, args.accounts.launcher.member)
            # Workers of a replay.
            self._grant_pull("validation", self.image, args.accounts.validation.member)
            self._grant_pull("backup", self.image, args.accounts.backup.member)
        # Cloud Run pulls as its own agent, whoever its jobs and services run as. A second grant of the same on the same
        # repository would end with the first.
        images = {repository_of(image): image for image in (args.settings.console.image, self.image) if image}
        for (_, _, repository), image in images.items():
            who = "run" if image == self.image else f"run-{repository}"
            self._grant_pull(who, image, pulumi.Output.concat("serviceAccount:", args.keys.agent("run")))
        if self.image and not pipeline.template:
            self.template = self._template()
        self.register_outputs({"image": self.image, "template": self.template})

    def _template(self) -> pulumi.Output[str]:
        """Named for what is in it: another image, option or size is another path, and so another job.

        Size and buckets of the workers are here and not arguments of the job: its resource reads them back by names
        that Beam's Python SDK does not use, finds nothing, and would replace the job in every `up`.
        """
        names, pipeline = self._args.settings.names, self._args.settings.pipeline
        environment: dict[str, str | int] = {
            "machineType": pipeline.machine_type,
            "numWorkers": pipeline.workers,
            "maxWorkers": pipeline.max_workers,
            "tempLocation": f"gs://{names.bucket('temp')}/temp",
            "stagingLocation": f"gs://{names.bucket('staging')}/staging",
        }
        text = template.text(self.image, environment)
        name = f"{names.of(naming.STREAM_JOB)}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        made = storage.BucketObject(
            "template",
            bucket=names.bucket("templates"),
            name=name,
            source=pulumi.StringAsset(text),
            content_type="application/json",
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self._args.storage]),
        )
        return pulumi.Output.all(self._args.storage.templates, made.id).apply(lambda place: f"{place[0]}/{name}")

    def _grant_pull(self, who: str, image: str, member: pulumi.Input[str]) -> None:
        """On the one repository that the image is in, which another project may hold: images are promoted by digest."""
        location, project, repository = repository_of(image)
        artifactregistry.RepositoryIamMember(
            f"image-{who}",
            project=project,
            location=location,
            repository=repository,
            role="roles/artifactregistry.reader",
            member=member,
            opts=pulumi.ResourceOptions(parent=self),
        )


def repository_of(image: str) -> tuple[str, str, str]:
    """Location, project and repository of an image."""
    registry, project, repository, _ = image.split("/", 3)
    return registry.removesuffix("-docker.pkg.dev"), project, repository
