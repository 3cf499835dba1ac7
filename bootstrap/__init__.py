"""What must be there before a stack's first `pulumi up`: made once a stack, by gcloud, and again without harm."""
