package peer;

import com.google.cloud.Timestamp;
import com.google.cloud.spanner.DatabaseId;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.Objects;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.apache.beam.runners.direct.DirectOptions;
import org.apache.beam.sdk.Pipeline;
import org.apache.beam.sdk.io.gcp.spanner.SpannerConfig;
import org.apache.beam.sdk.io.gcp.spanner.SpannerIO;
import org.apache.beam.sdk.io.gcp.spanner.changestreams.model.DataChangeRecord;
import org.apache.beam.sdk.io.gcp.spanner.changestreams.model.Mod;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.sdk.options.StreamingOptions;
import org.apache.beam.sdk.options.Validation;
import org.apache.beam.sdk.options.ValueProvider.StaticValueProvider;
import org.apache.beam.sdk.transforms.DoFn;
import org.apache.beam.sdk.transforms.ParDo;

/**
 * Reads change streams of a Spanner emulator with Beam's connector and appends a line for each change to a file:
 * commit timestamp, arrival, id, table, operation, keys, new values, old values, with tabs between them.
 */
public final class Peer {
  /** What the program is given; Beam's own options come with it. */
  public interface Options extends StreamingOptions, DirectOptions {
    @Validation.Required
    String getEndpoint();

    void setEndpoint(String value);

    /** projects/P/instances/I/databases/D. */
    @Validation.Required
    String getDatabase();

    void setDatabase(String value);

    /** A database of the same instance, where the connector keeps what it knows of partitions. */
    @Validation.Required
    String getMetadata();

    void setMetadata(String value);

    /** Names of the change streams, with commas. */
    @Validation.Required
    String getStreams();

    void setStreams(String value);

    /** RFC 3339: what was committed before is not read. */
    @Validation.Required
    String getStart();

    void setStart(String value);

    @Validation.Required
    String getOut();

    void setOut(String value);
  }

  private static final Logger LOG = Logger.getLogger("");

  public static void main(String[] args) {
    Options options = PipelineOptionsFactory.fromArgs(args).withValidation().as(Options.class);
    options.setStreaming(true);
    LOG.setLevel(Level.WARNING);
    Pipeline pipeline = Pipeline.create(options);
    for (String stream : options.getStreams().split(",")) {
      pipeline
          .apply("Read " + stream, read(options, stream))
          .apply("Write " + stream, ParDo.of(new Write(options.getOut())));
    }
    pipeline.run().waitUntilFinish();
  }

  private static SpannerIO.ReadChangeStream read(Options options, String stream) {
    DatabaseId database = DatabaseId.of(options.getDatabase());
    String instance = database.getInstanceId().getInstance();
    SpannerConfig config =
        SpannerConfig.create()
            .withProjectId(database.getInstanceId().getProject())
            .withInstanceId(instance)
            .withDatabaseId(database.getDatabase())
            .withEmulatorHost(StaticValueProvider.of(options.getEndpoint()))
            .withIsLocalChannelProvider(StaticValueProvider.of(false));
    return SpannerIO.readChangeStream()
        .withSpannerConfig(config)
        .withMetadataInstance(instance)
        .withMetadataDatabase(options.getMetadata())
        .withChangeStreamName(stream)
        .withInclusiveStartAt(Timestamp.parseTimestamp(options.getStart()));
  }

  /** A change has arrived when its line is handed to the operating system. */
  private static final class Write extends DoFn<DataChangeRecord, Void> {
    private static BufferedWriter file;
    private final String path;

    private Write(String path) {
      this.path = path;
    }

    @ProcessElement
    public void process(@Element DataChangeRecord record) {
      for (int i = 0; i < record.getMods().size(); i++) {
        Mod mod = record.getMods().get(i);
        // Each stream numbers a transaction's records for itself.
        String id =
            String.join(
                "/",
                record.getServerTransactionId(),
                record.getTableName(),
                record.getRecordSequence(),
                Integer.toString(i));
        write(
            path,
            record.getCommitTimestamp().toString(),
            String.join(
                "\t",
                id,
                record.getTableName(),
                record.getModType().name(),
                mod.getKeysJson(),
                Objects.toString(mod.getNewValuesJson(), ""),
                Objects.toString(mod.getOldValuesJson(), "")));
      }
    }

    /** The workers of the runner are threads of one process, and share one file. */
    private static synchronized void write(String path, String committed, String change) {
      try {
        if (file == null) {
          file = Files.newBufferedWriter(Path.of(path));
        }
        file.write(committed + "\t" + Instant.now() + "\t" + change + "\n");
        file.flush();
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }
}
